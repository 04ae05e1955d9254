"""The environment of the project's processes: addresses, and secrets that are generated once and kept."""

import dataclasses
import json
import os
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote

from orderflow import providers, push_account
from orderflow.stack import ports
from orderflow.stack.checkout import state
from orderflow.stack.checkout.folders import StackFolders
from orderflow.stack.ports import LOOPBACK
from orderflow.stack.problem import Problem

WEB_PORT = 8000
# Names of listening processes. `smtp` is the mail server, `smtp-control` its control API.
SERVERS = ("postgres", "valkey")
SANDBOX = (*providers.ORDER_SERVERS, *providers.CHANNEL_SERVERS, "smtp-control", "mailbox")
# The caller's settings for Python, Gunicorn, Celery (whose command line reads the last two) and Flower, which
# are meant for other projects.
UNWANTED = {"PYTHONDONTWRITEBYTECODE", "PYTHONHOME", "PYTHONPATH", "PYTHONSAFEPATH", "DJANGO_SETTINGS_MODULE"}
UNWANTED |= {"GUNICORN_CMD_ARGS", "WEB_CONCURRENCY", "RESULT_BACKEND", "APP"}
UNWANTED |= {"ORDERFLOW_STARTED_AT", "ORDERFLOW_CALLED_FROM"}  # set by run.py for this process
UNWANTED_PREFIXES = ("CELERY_", "FLOWER_")
SECRETS = ("SECRET_KEY", "DATABASE_URL", "BROKER_URL", "REDIS_URL", "STRIPE_API_KEY", "WAREHOUSE_TOKEN")
MORE_SECRETS = ("EMAIL_URL", "TWILIO_AUTH_TOKEN", "ORDERFLOW_ADMIN_PASSWORD")
UNWANTED |= {
    f"{name}_FILE" for name in (*SECRETS, *MORE_SECRETS)
}  # the stack sets the variables themselves; setting both is refused

PLACEHOLDERS = {
    "ORDERFLOW_COMMAND": "python3 run.py",
    "SECRET_KEY": "help",
    "DATABASE_URL": "postgresql://127.0.0.1:1/help",
    "BROKER_URL": "redis://127.0.0.1:1/0",
}
"""Settings for a command that only prints its help."""

_MAKERS: dict[str, Callable[[], str]] = {
    "postgres_superuser": lambda: secrets.token_hex(16),
    "postgres": lambda: secrets.token_hex(16),
    "valkey": lambda: secrets.token_hex(16),
    "django": lambda: secrets.token_urlsafe(50),
    "stripe": lambda: f"sk_test_{secrets.token_hex(16)}",
    "warehouse": lambda: secrets.token_urlsafe(24),
    "twilio_account": lambda: f"AC{secrets.token_hex(16)}",
    "twilio": lambda: secrets.token_hex(16),
    "admin": lambda: f"of-{secrets.token_hex(8)}",  # never digits only, which the admin rejects as too simple
}


@dataclasses.dataclass(frozen=True)
class Given:
    """Servers that the user runs, named in the environment; empty where private ones are used."""

    database: str
    broker: str
    redis: str

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Given":
        """Read the user's settings. A given Redis broker also serves as the workers' shared state."""
        broker = _given(environment, "BROKER_URL")
        redis = _given(environment, "REDIS_URL") or (broker if broker.startswith("redis") else "")
        return cls(database=_given(environment, "DATABASE_URL"), broker=broker, redis=redis)

    @property
    def needs_postgres(self) -> bool:
        return not self.database

    @property
    def needs_valkey(self) -> bool:
        return not (self.broker and self.redis)


def _given(environment: Mapping[str, str], name: str) -> str:
    """
    Return a setting, or the content of the file that holds it.

    Raises:
        Problem: if that file cannot be read.
    """
    if environment.get(name) or not (path := environment.get(f"{name}_FILE")):
        return environment.get(name, "")
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise Problem(f"{name}_FILE names {path}, which cannot be read.") from error


def make_secrets() -> dict[str, str]:
    """Return new passwords and keys."""
    return {name: make() for name, make in _MAKERS.items()}


def load_secrets(folders: StackFolders) -> dict[str, str]:
    """
    Return the passwords and keys of this checkout; generate those that are missing.

    Raises:
        Problem: if the file is damaged.
    """
    try:
        kept: dict[str, str] = json.loads(folders.secrets.read_text())
    except FileNotFoundError:
        kept = {}
    except ValueError as error:
        raise Problem(f"{folders.secrets} is damaged. Start over with: python3 run.py reset") from error
    complete = make_secrets() | kept
    if complete != kept:
        state.write_private(folders.secrets, json.dumps(complete, indent=1))
    return complete


def choose_ports(folders: StackFolders, *, web: int | None) -> dict[str, int]:
    """
    Return a free port per listening process. Ports of the last start are reused where they are free, so that
    addresses stay the same.

    Raises:
        Problem: if the requested port is taken.
    """
    if web is not None and not ports.is_free(web):
        raise Problem(
            f"Port {web} is taken. Name another with --port, or leave it out: the next free one is found."
        )
    try:
        last: dict[str, int] = json.loads(folders.ports.read_text())
    except (OSError, ValueError):
        last = {}
    chosen: dict[str, int] = {"web": web or ports.choose_upwards(WEB_PORT)}
    for name in (*SERVERS, *SANDBOX, "flower", "metrics"):
        chosen[name] = ports.choose(preferred=last.get(name), taken=chosen.values())
    folders.ports.write_text(json.dumps(chosen, indent=1))
    return chosen


def base(environment: Mapping[str, str]) -> dict[str, str]:
    """
    Return the caller's environment without variables that disturb our processes, and with no proxy between
    them.
    """
    # libpq's variables, such as PGSSLMODE, belong to the user's server if there is one, and would break ours.
    prefixes = UNWANTED_PREFIXES if environment.get("DATABASE_URL") else (*UNWANTED_PREFIXES, "PG")
    clean = {
        name: value
        for name, value in environment.items()
        if name not in UNWANTED and not name.startswith(prefixes)
    }
    for name in ("no_proxy", "NO_PROXY"):
        clean[name] = ",".join(filter(None, (environment.get(name, ""), LOOPBACK, "localhost")))
    clean["PYTHONUNBUFFERED"] = "1"
    return clean


def managed(
    *, folders: StackFolders, secret: Mapping[str, str], port: Mapping[str, int], servers: Mapping[str, str]
) -> dict[str, str]:
    """
    Return the variables that the settings read. Providers are always the sandbox: no real card is charged.
    """
    at = {name: f"http://{LOOPBACK}:{number}" for name, number in port.items()}
    return {
        **servers,
        "SECRET_KEY": secret["django"],
        "ORDERFLOW_ENV": "development",
        "ORDERFLOW_COMMAND": "python3 run.py",
        "ALLOWED_HOSTS": f"{LOOPBACK},localhost",
        "STRIPE_API_BASE": at["payments"],
        "STRIPE_API_KEY": secret["stripe"],
        "WAREHOUSE_URL": at["warehouse"],
        "WAREHOUSE_TOKEN": secret["warehouse"],
        "EMAIL_URL": f"smtp://sandbox:{quote(secret['admin'], safe='')}@{LOOPBACK}:{port['smtp']}",
        "TWILIO_API_BASE": at["sms"],
        "TWILIO_ACCOUNT_SID": secret["twilio_account"],
        "TWILIO_AUTH_TOKEN": secret["twilio"],
        "TWILIO_FROM": "+15005550006",  # the number that Twilio accepts with test credentials
        "FCM_API_BASE": at["push"],
        "FCM_PROJECT_ID": "orderflow-sandbox",
        "FCM_CREDENTIALS_FILE": str(folders.push_credentials),
        "FLOWER_URL": at["flower"],
        "FLOWER_BASIC_AUTH": f"admin:{secret['admin']}",  # one password for everything that the demo offers
        "SANDBOX_URL": at["mailbox"],
        "SANDBOX_PASSWORD": secret["admin"],
        "ORDERFLOW_WEB_URL": at["web"],
        "ORDERFLOW_ADMIN_USER": "admin",
        "ORDERFLOW_ADMIN_PASSWORD": secret["admin"],
    }


def write_sandbox_password(folders: StackFolders, password: str) -> None:
    """Write the run's password to the file that the sandbox's servers read when they start."""
    folders.sandbox.mkdir(parents=True, exist_ok=True)
    state.write_private(folders.sandbox / "password", password)


def write_push_credentials(folders: StackFolders, token_uri: str) -> None:
    """Write a service account for the push sandbox, with a key that is generated once."""
    push_account.write(folders.push_credentials, token_uri=token_uri)


def called_at(environment: Mapping[str, str]) -> float:
    """Return when run.py was started, in Unix time."""
    return float(environment.get("ORDERFLOW_STARTED_AT") or time.time())


def called_from(environment: Mapping[str, str]) -> str:
    """Return the folder run.py was called from; relative paths on its command line start there."""
    return environment.get("ORDERFLOW_CALLED_FROM") or os.getcwd()
