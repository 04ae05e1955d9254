"""What the project's processes find in their environment: addresses, and secrets made once and kept."""

import dataclasses
import json
import os
import secrets
import time
from collections.abc import Callable, Mapping

from . import ports, state
from .homes import Home
from .ports import LOOPBACK
from .problem import Problem

WEB_PORT = 8000
# Names of listening processes. `smtp` is the mail server itself, `smtp-control` its page of switches.
SERVERS = ("postgres", "valkey")
SANDBOX = ("payments", "warehouse", "smtp", "smtp-control", "sms", "push", "mailbox")
# The caller's own settings for other projects' Python, Gunicorn, Celery (whose command line reads the last
# two) and Flower.
UNWANTED = {"PYTHONDONTWRITEBYTECODE", "PYTHONHOME", "PYTHONPATH", "PYTHONSAFEPATH", "DJANGO_SETTINGS_MODULE"}
UNWANTED |= {"GUNICORN_CMD_ARGS", "WEB_CONCURRENCY", "RESULT_BACKEND", "APP"}
UNWANTED |= {"ORDERFLOW_STARTED_AT", "ORDERFLOW_CALLED_FROM"}  # from run.py to us
UNWANTED_PREFIXES = ("CELERY_", "FLOWER_")

_MAKERS: dict[str, Callable[[], str]] = {
    "postgres_superuser": lambda: secrets.token_hex(16),
    "postgres": lambda: secrets.token_hex(16),
    "valkey": lambda: secrets.token_hex(16),
    "django": lambda: secrets.token_urlsafe(50),
    "stripe": lambda: f"sk_test_{secrets.token_hex(16)}",
    "warehouse": lambda: secrets.token_urlsafe(24),
    "twilio_account": lambda: f"AC{secrets.token_hex(16)}",
    "twilio": lambda: secrets.token_hex(16),
    "admin": lambda: secrets.token_hex(8),
}


@dataclasses.dataclass(frozen=True)
class Given:
    """Servers that the user runs, named in the environment; empty where ours are to be used."""

    database: str
    broker: str
    redis: str

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Given":
        """Read what the user has set. A given Redis broker also serves as the workers' shared memory."""
        broker = environment.get("BROKER_URL", "")
        redis = environment.get("REDIS_URL", "") or (broker if broker.startswith("redis") else "")
        return cls(database=environment.get("DATABASE_URL", ""), broker=broker, redis=redis)

    @property
    def needs_postgres(self) -> bool:
        return not self.database

    @property
    def needs_valkey(self) -> bool:
        return not (self.broker and self.redis)


def make_secrets() -> dict[str, str]:
    """Return new passwords and keys."""
    return {name: make() for name, make in _MAKERS.items()}


def load_secrets(home: Home) -> dict[str, str]:
    """
    Return the passwords and keys of this checkout, making those that are missing.

    Raises:
        Problem: if the file is damaged.
    """
    try:
        kept: dict[str, str] = json.loads(home.secrets.read_text())
    except FileNotFoundError:
        kept = {}
    except ValueError as error:
        raise Problem(f"{home.secrets} is damaged. Start over with: python3 run.py reset") from error
    complete = make_secrets() | kept
    if complete != kept:
        state.write_private(home.secrets, json.dumps(complete, indent=1))
    return complete


def choose_ports(home: Home, *, web: int | None) -> dict[str, int]:
    """
    Return a free port per listening process: the last start's where they are still free, so that addresses
    stay the same.

    Raises:
        Problem: if the port asked for is taken.
    """
    if web is not None and not ports.is_free(web):
        raise Problem(
            f"Port {web} is taken. Name another with --port, or leave it out: the next free one is found."
        )
    try:
        last: dict[str, int] = json.loads(home.ports.read_text())
    except (OSError, ValueError):
        last = {}
    chosen: dict[str, int] = {"web": web or ports.choose_upwards(WEB_PORT)}
    for name in (*SERVERS, *SANDBOX, "flower"):
        chosen[name] = ports.choose(preferred=last.get(name), taken=chosen.values())
    home.ports.write_text(json.dumps(chosen, indent=1))
    return chosen


def base(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the caller's environment without what misleads our processes, and with no proxy between them."""
    # libpq's variables, such as PGSSLMODE, belong to the user's server when there is one, and would break ours.
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
    *, home: Home, secret: Mapping[str, str], port: Mapping[str, int], servers: Mapping[str, str]
) -> dict[str, str]:
    """Return what the settings read. Providers are always the sandbox: a demo never charges a real card."""
    at = {name: f"http://{LOOPBACK}:{number}" for name, number in port.items()}
    return {
        **servers,
        "SECRET_KEY": secret["django"],
        "ORDERFLOW_ENV": "development",
        "ALLOWED_HOSTS": f"{LOOPBACK},localhost",
        "STRIPE_API_BASE": at["payments"],
        "STRIPE_API_KEY": secret["stripe"],
        "WAREHOUSE_URL": at["warehouse"],
        "WAREHOUSE_TOKEN": secret["warehouse"],
        "EMAIL_URL": f"smtp://{LOOPBACK}:{port['smtp']}",
        "TWILIO_API_BASE": at["sms"],
        "TWILIO_ACCOUNT_SID": secret["twilio_account"],
        "TWILIO_AUTH_TOKEN": secret["twilio"],
        "TWILIO_FROM": "+15005550006",  # the number that Twilio accepts with test credentials
        "FCM_API_BASE": at["push"],
        "FCM_PROJECT_ID": "orderflow-sandbox",
        "FCM_CREDENTIALS_FILE": str(home.push_credentials),
        "FLOWER_URL": at["flower"],
        "FLOWER_BASIC_AUTH": f"admin:{secret['admin']}",  # the demo ends with one password to try
        "SANDBOX_URL": at["mailbox"],
        "ORDERFLOW_WEB_URL": at["web"],
        "ORDERFLOW_ADMIN_USER": "admin",
        "ORDERFLOW_ADMIN_PASSWORD": secret["admin"],
    }


def write_push_credentials(home: Home, token_uri: str) -> None:
    """Write a service account for the push sandbox, in the form of Google's key files, with a key made once."""
    try:
        account = json.loads(home.push_credentials.read_text())
    except (OSError, ValueError):
        account = {
            "type": "service_account",
            "project_id": "orderflow-sandbox",
            "private_key_id": secrets.token_hex(20),
            "private_key": _private_key(),
            "client_email": "orderflow@orderflow-sandbox.example",
            "client_id": str(secrets.randbelow(10**20)),
        }
    if account.get("token_uri") != token_uri:
        state.write_private(home.push_credentials, json.dumps({**account, "token_uri": token_uri}, indent=1))


def _private_key() -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem.decode()


def called_at(environment: Mapping[str, str]) -> float:
    """Return when run.py began, in Unix time."""
    return float(environment.get("ORDERFLOW_STARTED_AT") or time.time())


def called_from(environment: Mapping[str, str]) -> str:
    """Return the folder run.py was called from; relative paths on its command line mean that one."""
    return environment.get("ORDERFLOW_CALLED_FROM") or os.getcwd()
