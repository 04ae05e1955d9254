"""
Settings, and the only place that reads the environment.

Everything that differs between machines comes from environment variables; all wrong or missing ones are
reported together at start. `run.py` sets them for the embedded servers and the sandbox. The value of a variable
can be in a file that `NAME_FILE` names: secrets do not belong in an environment that children inherit.
"""

from __future__ import annotations

import datetime as dt
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from environs import EnvValidationError, validate

from orderflow import providers
from orderflow.configuration import email_url, tls
from orderflow.configuration.files_env import EnvOfFiles

env = EnvOfFiles(eager=False)
env.add_parser("email_url", email_url.parse)
env.read_env(recurse=False)

BASE_DIR = Path(__file__).resolve().parent.parent
OUTBOX_PROJECT_PACKAGES = ("orderflow", "outbox", "orders", "notifications")
"""Frames of these packages are our own, in fingerprints and folded tracebacks."""

SAMPLERS = [
    f"{when}{name}" for when in ("parentbased_", "") for name in ("always_on", "always_off", "traceidratio")
]
TRACE_URL = r"(?:https?://[^\s{}]+\{trace_id\}[^\s{}]*)?\Z"
WEB_ADDRESS, NO_WEB_ADDRESS = r"(?:https?://\S+)?\Z", "must be an http or https address"
NO_TRACE_URL = "must be an http or https address with {{trace_id}} in it, and no other braces"

ENVIRONMENT: str = env.str(
    "ORDERFLOW_ENV",
    "production",
    validate=validate.OneOf(
        ["production", "development", "test"],
        error="must be production, development or test, in lower case; a staging system is production",
    ),
)
"""
Only `production` requires TLS, secure cookies and a long SECRET_KEY; a misspelt name must not disable them.
"""

DEBUG: bool = env.bool("DEBUG", default=False)
SECRET_KEY: str = env.str("SECRET_KEY")
ALLOWED_HOSTS: list[str] = env.list("ALLOWED_HOSTS", [])
CSRF_TRUSTED_ORIGINS: list[str] = env.list("CSRF_TRUSTED_ORIGINS", [])

# Servers ---------------------------------------------------------------------------------------------

BROKER_URL: str = tls.verifying(env.str("BROKER_URL") or "")
REDIS_URL: str = tls.verifying(env.str("REDIS_URL", "") or "") or (
    BROKER_URL if BROKER_URL.startswith("redis") else ""
)
"""Where the workers share breaker states and rate limits. Empty: each process keeps its own."""

_database: dict[str, Any] = env.dj_db_url("DATABASE_URL", conn_max_age=60, conn_health_checks=True)
DATABASE_SESSIONS: int = env.int("DATABASE_SESSIONS", 48)
"""The number of sessions that all processes together open on PostgreSQL; by default for docker-compose.yml."""
DATABASE_PREPARE_AFTER: int = env.int("DATABASE_PREPARE_AFTER", 5, validate=validate.Range(min=0))
"""After how many executions a session has the server prepare a statement: planning is most of what PostgreSQL
does for a step. 0: never, for poolers that cannot (see docs/scaling.md)."""
OUTBOX_SESSION_POOL_SIZE: int = env.int("DATABASE_POOL_SIZE", 8, validate=validate.Range(min=1))
"""The maximum number of sessions that the tasks of one worker share, if it runs them in threads."""

DATABASE_SIZE_LIMIT: int = env.int("DATABASE_SIZE_LIMIT", 0, validate=validate.Range(min=0))
"""The size in bytes that the database may reach; an alert precedes it. 0: no limit."""

RABBITMQ_API_URL: str = env.str("RABBITMQ_API_URL", "")
"""RabbitMQ's management API with user and password, for messages that consumers hold. Empty: not known."""

POOL: str = os.environ.get("ORDERFLOW_POOL", "")
"""Which pool this worker belongs to; empty in all other processes. Not a setting: each command sets it."""
OUTBOX_POOL = POOL
OUTBOX_HEARTBEAT_SECONDS: float = env.float("HEARTBEAT_SECONDS", 10.0, validate=validate.Range(min=0.2, max=60))
"""How often workers, relays and beat write that they are alive. After three missing ones a process is gone."""

# Providers -------------------------------------------------------------------------------------------

STRIPE_API_KEY: str = env.str("STRIPE_API_KEY", "")
STRIPE_API_BASE: str = env.str("STRIPE_API_BASE", "")
"""https://api.stripe.com, or a sandbox. Empty: none, so that no card is charged by accident."""

WAREHOUSE_URL: str = env.str("WAREHOUSE_URL", "")
WAREHOUSE_TOKEN: str = env.str("WAREHOUSE_TOKEN", "")

_email: dict[str, Any] = env.email_url("EMAIL_URL", "smtp://localhost:25")
DEFAULT_FROM_EMAIL: str = env.str("DEFAULT_FROM_EMAIL", "OrderFlow <orders@orderflow.example>")

TWILIO_ACCOUNT_SID: str = env.str("TWILIO_ACCOUNT_SID", "")
TWILIO_AUTH_TOKEN: str = env.str("TWILIO_AUTH_TOKEN", "")
TWILIO_FROM: str = env.str("TWILIO_FROM", "")
TWILIO_API_BASE: str = env.str("TWILIO_API_BASE", "")
"""https://api.twilio.com, or a sandbox. Empty: none."""

FCM_PROJECT_ID: str = env.str("FCM_PROJECT_ID", "")
FCM_CREDENTIALS_FILE: str = env.str("FCM_CREDENTIALS_FILE", "")
FCM_API_BASE: str = env.str("FCM_API_BASE", "")
"""https://fcm.googleapis.com, or a sandbox. Empty: none."""

PAYMENT_GATEWAY: str = env.str("PAYMENT_GATEWAY", "orders.adapters.stripe.StripeGateway")
WAREHOUSE: str = env.str("WAREHOUSE", "orders.adapters.http_warehouse.HttpWarehouse")
OUTBOX_BREAKER_FACTORY: str = env.str("BREAKER_FACTORY", "orderflow.shared_state.breakers.shared_breaker")

PROVIDER_TIMEOUT = dt.timedelta(seconds=env.float("PROVIDER_TIMEOUT_SECONDS", 5.0))
"""The timeout of a call to a provider. The step's lease and the task's time limit are longer."""

OUTBOX_PROVIDER_SHARE: float = env.float("PROVIDER_SHARE", 0.75, validate=validate.Range(min=0.1, max=1))
"""The share of a worker's threads that calls of one provider may hold, if the worker calls several. A call
beyond it waits for a moment, then its message waits without spending an attempt. 1: no bound."""

OUTBOX_CHAIN_INLINE_SECONDS: float = env.float(
    "CHAIN_INLINE_SECONDS", 1.0, validate=validate.Range(min=0, max=5)
)
"""How long after its delivery a chain may continue in the same process, while its next step belongs to the same
pool; later it continues through the broker. Together with the longest step after it, it stays below the soft
time limit. 0: always through the broker."""

# Pages and addresses ---------------------------------------------------------------------------------

OUTBOX_COMMAND: str = env.str("ORDERFLOW_COMMAND", "python manage.py")
"""How commands start here, in the texts of pages and commands."""

WEB_URL: str = env.str("ORDERFLOW_WEB_URL", "http://127.0.0.1:8000")
ADMIN_USER: str = env.str("ORDERFLOW_ADMIN_USER", "")
ADMIN_PASSWORD: str = env.str("ORDERFLOW_ADMIN_PASSWORD", "")
"""The user that `ensure_admin` makes an administrator; run.py generates the password at its first start."""
STARTED_AT: float = env.float("ORDERFLOW_STARTED_AT", 0.0)
"""When run.py was started, in Unix seconds, so that the demo can show the total time. 0: unknown."""

OUTBOX_LIVENESS_FILE: str = env.str("LIVENESS_FILE", "")
"""The file that a worker, a relay or beat touches every second, for probes; each process needs its own."""

FLOWER_URL: str = env.str("FLOWER_URL", "")
GRAFANA_URL: str = env.str("GRAFANA_URL", "", validate=validate.Regexp(WEB_ADDRESS, error=NO_WEB_ADDRESS))
RUNBOOKS_URL: str = env.str("RUNBOOKS_URL", "", validate=validate.Regexp(WEB_ADDRESS, error=NO_WEB_ADDRESS))
"""Where the files of docs/runbooks are for people; pages add the name of a file. Empty: there are no links."""
SANDBOX_URL: str = env.str("SANDBOX_URL", "")
SANDBOX_PASSWORD: str = env.str("SANDBOX_PASSWORD", "")
"""The password of the sandbox's pages and control API; it is in the file `password` beside its ledgers."""
SENTRY_DSN: str = env.str("SENTRY_DSN", "")
RELEASE: str = env.str("ORDERFLOW_RELEASE", "")

OTEL_EXPORTER_OTLP_ENDPOINT: str = env.str("OTEL_EXPORTER_OTLP_ENDPOINT", "")
"""The receiver of traces, such as http://jaeger:4318. Empty: nothing is traced. OpenTelemetry's SDK reads its
other standard variables itself: see docs/tracing.md."""
OTEL_EXPORTER_OTLP_PROTOCOL: str = env.str(
    "OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf", validate=validate.OneOf(["http/protobuf", "grpc"])
)
OTEL_EXPORTER_OTLP_HEADERS: str = env.str("OTEL_EXPORTER_OTLP_HEADERS", "")
"""Headers for the receiver, such as its credentials: `name=value`, separated by commas."""
OTEL_SDK_DISABLED: bool = env.bool("OTEL_SDK_DISABLED", default=False)
OTEL_TRACES_SAMPLER: str = env.str(
    "OTEL_TRACES_SAMPLER", "parentbased_always_on", validate=validate.OneOf(SAMPLERS)
)
"""Which traces are recorded; `parentbased_traceidratio` with `OTEL_TRACES_SAMPLER_ARG` for a part of them."""
OTEL_TRACES_SAMPLER_ARG: float = env.float(
    "OTEL_TRACES_SAMPLER_ARG", 1.0, validate=validate.Range(min=0, max=1)
)
OUTBOX_TRACE_URL_TEMPLATE: str = env.str(
    "TRACE_URL_TEMPLATE", "", validate=validate.Regexp(TRACE_URL, error=NO_TRACE_URL)
)
"""The page of a trace, for links in the admin: https://jaeger.example/trace/{trace_id}. Empty: no links."""
METRICS_PORT: int = env.int("METRICS_PORT", 0, validate=validate.Range(min=0, max=65_535))
"""The port on which each worker, relay, beat and web server serves its metrics; 0: none counts or serves any"""
METRICS_ADDRESS: str = env.str("METRICS_ADDRESS", "127.0.0.1")
"""The address of that port. It has no password: keep it inside the network."""
LOG_FORMAT: str = env.str("LOG_FORMAT", "json")
LOG_LEVEL: str = env.str("LOG_LEVEL", "INFO")

# Rules of the business -------------------------------------------------------------------------------

OUTBOX_RETENTION_DAYS: int = env.int("OUTBOX_RETENTION_DAYS", 30)
RESULT_RETENTION_DAYS: int = env.int("RESULT_RETENTION_DAYS", 3)
NOTIFICATION_RETENTION_DAYS: int = env.int("NOTIFICATION_RETENTION_DAYS", 180, validate=validate.Range(min=1))
"""How long notifications are kept, with their addresses; never shorter than their messages."""
ORDER_OBJECTIVE_SECONDS: float = env.float("ORDER_OBJECTIVE_SECONDS", 60.0, validate=validate.Range(min=1))
"""The service level objective: within this time an order should be final. Metrics count those that are not."""
LARGEST_ORDER_MINOR: int = env.int("LARGEST_ORDER_MINOR", 10_000_000)
"""The largest total that is accepted without a person's approval, in minor units of the order's currency."""

NOTIFICATIONS_AFTER_RESTORE: str = env.str(
    "NOTIFICATIONS_AFTER_RESTORE", "hold", validate=validate.OneOf(["hold", "send"])
)
"""What happens to e-mails and pushes that may have been sent before a restore: hold (a dead letter each, for a
person to replay or discard) or send, perhaps a second time."""

API_RATE_LIMIT: str = env.str("API_RATE_LIMIT", "600/minute")
API_TOKEN_LIFETIME_DAYS: int = env.int(
    "API_TOKEN_LIFETIME_DAYS", 365, validate=validate.Range(min=1, max=36_500)
)
"""How long the secret of an API token is valid by default."""
TRUSTED_PROXIES: int = env.int("TRUSTED_PROXIES", 0, validate=validate.Range(min=0))
"""The number of our own proxies in front; they add the last entries of X-Forwarded-For. If it is too high,
clients can claim any address."""

LOGIN_RATE_PER_ADDRESS: str = env.str("LOGIN_RATE_PER_ADDRESS", "10/minute;60/hour")
"""How often a password may be tried from one address (IPv6: from one /64), several rates separated by `;`."""
LOGIN_RATE_PER_USER: str = env.str("LOGIN_RATE_PER_USER", "20/minute")
"""How often for one user, from any address. Higher than per address, so that one address locks nobody out."""
SESSION_IDLE_MINUTES: int = env.int("SESSION_IDLE_MINUTES", 30, validate=validate.Range(min=1))
SESSION_HOURS: int = env.int("SESSION_HOURS", 12, validate=validate.Range(min=1))
"""After how long without a request, and at the latest, staff must log in again."""
ADMIN_SECOND_FACTOR: bool = env.bool("ADMIN_SECOND_FACTOR", default=False)
"""Whether the admin also requires a code; `second_factor USER` sets one up for a user."""

_redirect_to_tls: bool = env.bool("SECURE_SSL_REDIRECT", default=True)
_preload: bool = env.bool("SECURE_HSTS_PRELOAD", default=False)

try:
    env.seal()
except EnvValidationError as wrong:
    # Every program ends with this sentence instead of a traceback.
    _complaints = ", ".join(
        f"{name} ({texts[0].removeprefix('Environment variable ').rstrip('.').lower()})"
        for name, texts in cast("dict[str, list[str]]", wrong.error_messages).items()
    )
    raise SystemExit(
        f"OrderFlow's settings are incomplete or wrong: {_complaints}. Set them in the environment or in .env, "
        "as .env.example shows; `python3 run.py` sets them all."
    ) from None
if _database["ENGINE"] != "django.db.backends.postgresql":
    raise SystemExit("DATABASE_URL must begin with postgresql://: OrderFlow needs PostgreSQL.")

if OTEL_EXPORTER_OTLP_ENDPOINT:  # OpenTelemetry reads the environment, not files
    for _name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"):
        os.environ[_name] = str(globals()[_name])
    os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")  # the stable names of requests' attributes

# Django ----------------------------------------------------------------------------------------------

INSTALLED_APPS = [
    "outbox",
    "orders",
    "notifications",
    "django_otp",
    "django_otp.plugins.otp_totp",
    "django_otp.plugins.otp_static",
    "orderflow",
    "django_celery_results",
    "django_rich",
    "orderflow.login.apps.LoginAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.postgres",
    "django.contrib.staticfiles",
]

MIDDLEWARE = [
    "orderflow.middleware.CorrelationIdMiddleware",
    "orderflow.middleware.ProbesMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "orderflow.middleware.ContentSecurityPolicyMiddleware",
    "orderflow.middleware.ReadableTextMiddleware",
    "orderflow.middleware.AdminLookupsMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "orderflow.login.middleware.LoginMiddleware",
    "django_otp.middleware.OTPMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "orderflow.urls"
WSGI_APPLICATION = "orderflow.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# The pages of the API's documentation. As an app, Ninja would be loaded by all workers: 12 MB of each.
_ninja = Path(cast(str, cast(Any, find_spec("ninja")).origin)).parent

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "orderflow" / "templates", _ninja / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "orderflow.middleware.links",
            ],
        },
    },
]

# Steps, notifications and the relay find their rows by keys, in statements that a session plans once. A table
# may be nearly empty at that moment and grow to thousands of rows before its statistics do: such a plan would
# read the whole table for every order (decision 0041).
BY_KEY = "-c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off"
POOLS_BY_KEY = ("orders", "relay", *providers.CHANNELS)
_plans = f" {BY_KEY}" if POOL in POOLS_BY_KEY else ""

# A runaway statement must not outlive the task that sent it; the loss of a server must be noticed within
# seconds. No pool in workers: Celery's fix-up would close it around every task.
DATABASES = {"default": _database}
DATABASES["default"].setdefault("OPTIONS", {}).update(
    {
        "connect_timeout": 2,
        "keepalives": 1,
        "keepalives_idle": 10,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "server_side_binding": True,
        "prepare_threshold": DATABASE_PREPARE_AFTER or None,
        "options": f"-c statement_timeout=30000 -c idle_in_transaction_session_timeout=60000{_plans}",
    }
)
DATABASES["default"]["DISABLE_SERVER_SIDE_CURSORS"] = True  # they end with the transaction behind a pooler

globals().update({name: value for name, value in _email.items() if name.startswith("EMAIL_")})
EMAIL_BACKEND = "notifications.channels.smtp.Backend"
EMAIL_TIMEOUT = PROVIDER_TIMEOUT.total_seconds()

AUTHENTICATION_BACKENDS = ["orderflow.login.backend.LimitedBackend"]
PASSWORD_HASHERS = [
    "orderflow.login.hashing.QuietPBKDF2PasswordHasher",
    "django.contrib.auth.hashers.ScryptPasswordHasher",
    "django.contrib.auth.hashers.PBKDF2SHA1PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 12},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]

LANGUAGE_CODE = "en-gb"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = True

STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
STATICFILES_DIRS = [_ninja / "static"]
WHITENOISE_USE_FINDERS = ENVIRONMENT != "production"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"
        if ENVIRONMENT == "production"
        else "django.contrib.staticfiles.storage.StaticFilesStorage"
    },
}

SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SESSION_COOKIE_AGE = SESSION_HOURS * 3600  # only for cookies: orderflow.login.middleware ends sessions
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
_behind_tls = ENVIRONMENT == "production" and not DEBUG
SESSION_COOKIE_SECURE = _behind_tls
CSRF_COOKIE_SECURE = _behind_tls
SECURE_SSL_REDIRECT = _behind_tls and _redirect_to_tls
# Without our own proxy in front, this header is under the client's control; see gunicorn.conf.py, too.
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if TRUSTED_PROXIES else None
SECURE_HSTS_SECONDS = 31_536_000 if _behind_tls else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = _behind_tls
SECURE_HSTS_PRELOAD = _behind_tls and _preload  # hard to revoke: browsers are shipped with the list
# Where tokens are sent, plain HTTP is refused and not redirected; pages for people are redirected.
SECURE_REDIRECT_EXEMPT = [
    r"^livez$",
    r"^readyz$",
    r"^healthz$",
    r"^metrics$",
    r"^api(?!/v1/(?:docs|problems/[^/]*)$)(?:/|$)",
]

LOGGING_CONFIG = None  # orderflow.observability.logs configures logging
