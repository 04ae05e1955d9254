"""
Settings, and the only place that reads the environment.

Everything that differs between machines comes from environment variables; wrong or missing ones are
all reported at once at start. `run.py` sets them for the embedded servers and the sandbox.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

from environs import Env, validate

env = Env(eager=False)
env.read_env(recurse=False)

BASE_DIR = Path(__file__).resolve().parent.parent
PROJECT_PACKAGES = ("orderflow", "outbox", "orders", "notifications")
"""Frames of these packages are ours, in fingerprints and folded tracebacks."""

ENVIRONMENT: str = env.str("ORDERFLOW_ENV", "production")
DEBUG: bool = env.bool("DEBUG", default=False)
SECRET_KEY: str = env.str("SECRET_KEY")
ALLOWED_HOSTS: list[str] = env.list("ALLOWED_HOSTS", [])
CSRF_TRUSTED_ORIGINS: list[str] = env.list("CSRF_TRUSTED_ORIGINS", [])

# Servers ---------------------------------------------------------------------------------------------

BROKER_URL: str = env.str("BROKER_URL")
REDIS_URL: str = env.str("REDIS_URL", "") or (BROKER_URL if str(BROKER_URL).startswith("redis") else "")
"""Where the workers share breaker states and rate limits. Empty: each process keeps its own."""

_database: dict[str, Any] = env.dj_db_url("DATABASE_URL", conn_max_age=60, conn_health_checks=True)
DATABASE_SESSIONS: int = env.int("DATABASE_SESSIONS", 19)
"""How many sessions all processes together open on PostgreSQL; unless told, those of docker-compose.yml."""
DATABASE_PREPARE_AFTER: int = env.int("DATABASE_PREPARE_AFTER", 5, validate=validate.Range(min=0))
"""How often a session sends a statement before it has the server prepare it: most of what PostgreSQL does
for a step is planning. 0: never, for poolers that cannot (see docs/scaling.md)."""

# Providers -------------------------------------------------------------------------------------------

STRIPE_API_KEY: str = env.str("STRIPE_API_KEY", "")
STRIPE_API_BASE: str = env.str("STRIPE_API_BASE", "")
"""Empty: Stripe's own address."""

WAREHOUSE_URL: str = env.str("WAREHOUSE_URL", "")
WAREHOUSE_TOKEN: str = env.str("WAREHOUSE_TOKEN", "")

_email: dict[str, Any] = env.dj_email_url("EMAIL_URL", "smtp://localhost:25")
DEFAULT_FROM_EMAIL: str = env.str("DEFAULT_FROM_EMAIL", "OrderFlow <orders@orderflow.example>")

TWILIO_ACCOUNT_SID: str = env.str("TWILIO_ACCOUNT_SID", "")
TWILIO_AUTH_TOKEN: str = env.str("TWILIO_AUTH_TOKEN", "")
TWILIO_FROM: str = env.str("TWILIO_FROM", "")
TWILIO_API_BASE: str = env.str("TWILIO_API_BASE", "")
"""Empty: Twilio's own address."""

FCM_PROJECT_ID: str = env.str("FCM_PROJECT_ID", "")
FCM_CREDENTIALS_FILE: str = env.str("FCM_CREDENTIALS_FILE", "")
FCM_API_BASE: str = env.str("FCM_API_BASE", "https://fcm.googleapis.com")

PAYMENT_GATEWAY: str = env.str("PAYMENT_GATEWAY", "orders.adapters.stripe.StripeGateway")
WAREHOUSE: str = env.str("WAREHOUSE", "orders.adapters.http_warehouse.HttpWarehouse")
BREAKER_FACTORY: str = env.str("BREAKER_FACTORY", "orderflow.breakers.shared_breaker")

PROVIDER_TIMEOUT = dt.timedelta(seconds=env.float("PROVIDER_TIMEOUT_SECONDS", 5.0))
"""How long one call to a provider may take. The step's lease and the task's time limit are longer."""

CHAIN_INLINE_SECONDS: float = env.float("CHAIN_INLINE_SECONDS", 1.0, validate=validate.Range(min=0, max=5))
"""How long after its delivery a chain may go on in the same process, while its next link belongs to the same
pool; later it goes by way of the broker. With the longest step after it, it stays below the soft time
limit. 0: always by way of the broker."""

# Windows ---------------------------------------------------------------------------------------------

WEB_URL: str = env.str("ORDERFLOW_WEB_URL", "http://127.0.0.1:8000")
ADMIN_USER: str = env.str("ORDERFLOW_ADMIN_USER", "")
ADMIN_PASSWORD: str = env.str("ORDERFLOW_ADMIN_PASSWORD", "")
"""Who `ensure_admin` makes an administrator; run.py draws the password at its first start."""
STARTED_AT: float = env.float("ORDERFLOW_STARTED_AT", 0.0)
"""When run.py began, in Unix seconds, so that the demo can say how long everything took. 0: not known."""

FLOWER_URL: str = env.str("FLOWER_URL", "")
SANDBOX_URL: str = env.str("SANDBOX_URL", "")
SENTRY_DSN: str = env.str("SENTRY_DSN", "")
RELEASE: str = env.str("ORDERFLOW_RELEASE", "")
LOG_FORMAT: str = env.str("LOG_FORMAT", "json")
LOG_LEVEL: str = env.str("LOG_LEVEL", "INFO")

# Rules of the business -------------------------------------------------------------------------------

OUTBOX_RETENTION_DAYS: int = env.int("OUTBOX_RETENTION_DAYS", 30)
RESULT_RETENTION_DAYS: int = env.int("RESULT_RETENTION_DAYS", 3)
LARGEST_ORDER_MINOR: int = env.int("LARGEST_ORDER_MINOR", 10_000_000)
"""The largest total that is taken without a person's approval, in minor units of the order's currency."""

API_RATE_LIMIT: str = env.str("API_RATE_LIMIT", "600/minute")
TRUSTED_PROXIES: int = env.int("TRUSTED_PROXIES", 0, validate=validate.Range(min=0))
"""How many proxies of ours a request passes; the last ones of X-Forwarded-For are theirs. Too many let
clients name any address they like."""

_redirect_to_tls: bool = env.bool("SECURE_SSL_REDIRECT", default=True)

env.seal()

# Django ----------------------------------------------------------------------------------------------

INSTALLED_APPS = [
    "outbox",
    "orders",
    "notifications",
    "orderflow",
    "django_celery_results",
    "django_rich",
    "ninja",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.postgres",
    "django.contrib.staticfiles",
]

MIDDLEWARE = [
    "orderflow.middleware.CorrelationIdMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "orderflow.middleware.ContentSecurityPolicyMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "orderflow.urls"
WSGI_APPLICATION = "orderflow.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "orderflow" / "templates"],
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

# A statement that runs away must not outlive the task that sent it; a server that is gone must be
# noticed within seconds. No pool in workers: Celery's fix-up would close it around every task.
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
        "options": "-c statement_timeout=30000 -c idle_in_transaction_session_timeout=60000",
    }
)
DATABASES["default"]["DISABLE_SERVER_SIDE_CURSORS"] = True  # they end with the transaction behind a pooler

globals().update({name: value for name, value in _email.items() if name.startswith("EMAIL_")})
EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
EMAIL_TIMEOUT = PROVIDER_TIMEOUT.total_seconds()

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

LANGUAGE_CODE = "en-gb"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = True

STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
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
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
_behind_tls = ENVIRONMENT == "production" and not DEBUG
SESSION_COOKIE_SECURE = _behind_tls
CSRF_COOKIE_SECURE = _behind_tls
SECURE_SSL_REDIRECT = _behind_tls and _redirect_to_tls
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if _behind_tls else None
SECURE_HSTS_SECONDS = 31_536_000 if _behind_tls else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = _behind_tls
SECURE_HSTS_PRELOAD = _behind_tls
SECURE_REDIRECT_EXEMPT = [r"^livez$", r"^readyz$"]

LOGGING_CONFIG = None  # orderflow.observability configures logging
