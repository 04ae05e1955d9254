"""The WSGI entry point: `gunicorn orderflow.wsgi`."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "orderflow.settings")

application = get_wsgi_application()

from orderflow import observability  # noqa: E402 - reads settings, which the line above has set up

observability.configure_logging()
