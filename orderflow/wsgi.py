"""The WSGI entry point: `gunicorn orderflow.wsgi`."""

import os
import sys

from django.core.wsgi import get_wsgi_application

from orderflow.configuration import startup
from orderflow.observability import trace_processes
from orderflow.web import requests

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "orderflow.settings")

DO_NOT_TRY_AGAIN = 3
"""The exit code of a worker after which Gunicorn ends too; after any other it starts a new worker at once."""

try:
    trace_processes.instrument_requests()
    application = requests.ReadableContentType(get_wsgi_application())
    startup.check_or_exit()
except SystemExit as refusal:  # settings are missing or wrong
    sys.stderr.write(f"{refusal}\n")
    sys.exit(DO_NOT_TRY_AGAIN)

from orderflow.observability import logs  # noqa: E402 - reads settings, which the lines above have set up

logs.configure_logging()
