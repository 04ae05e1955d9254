"""The tests of Django's tasks as a suite of its own, with a small project around it, for any environment."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from typing import Any

from django.conf import settings

from tests.package.environments import Environment
from tests.processes import ROOT

COPIED = ("tests/outbox/__init__.py", "tests/outbox/conftest.py", "tests/outbox/events.py")

SETTINGS = """
import suite_celery  # noqa: F401

SECRET_KEY = "suite"
USE_TZ = True
DATABASES = {{"default": {database!r}}}
INSTALLED_APPS = [
    "django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions",
    "django.contrib.messages", "django.contrib.staticfiles", "django.contrib.postgres", "outbox", *{apps!r},
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [{{
    "BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True,
    "OPTIONS": {{"context_processors": [
        "django.template.context_processors.request", "django.contrib.auth.context_processors.auth",
        "django.contrib.messages.context_processors.messages",
    ]}},
}}]
STATIC_URL = "static/"
ROOT_URLCONF = "suite_urls"
"""

URLS = """
from django.contrib import admin
from django.urls import path

urlpatterns = [path("admin/", admin.site.urls)]
"""

CELERY = """
from celery import Celery
from kombu import Queue

app = Celery("suite", broker={broker!r}, set_as_current=True)
app.conf.update(
    task_queues=[Queue(name) for name in ("orders", "email", "relay", "jobs")], task_default_queue="jobs",
    task_create_missing_queues=False, task_routes={{"outbox.tasks.*": {{"queue": "relay"}}}},
    task_acks_late=True, task_reject_on_worker_lost=True,
)
app.set_default()
"""

CONFTEST = """
import pytest

from outbox import testing


@pytest.fixture
def drain(transactional_db):
    testing.purge()
    yield testing.drain
    testing.purge()
"""


def run(environment: Environment, database: Mapping[str, Any], apps: list[str]) -> str:
    """Run the suite; return the end of what it printed. It must not have skipped anything."""
    folder = environment.folder / "suite"
    for name in COPIED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "tests" / "__init__.py").touch()
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "tests/outbox/django_tasks", folder / "tests/outbox/django_tasks", ignore=ignored)
    for name, text in {
        "suite_settings.py": SETTINGS.format(database=dict(database), apps=apps),
        "suite_urls.py": URLS,
        "suite_celery.py": CELERY.format(broker=settings.BROKER_URL),
        "conftest.py": CONFTEST,
        "pytest.ini": "[pytest]\nDJANGO_SETTINGS_MODULE = suite_settings\npythonpath = .\n",
    }.items():
        (folder / name).write_text(text)
    done = subprocess.run(
        [str(environment.python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/outbox/django_tasks"],
        cwd=folder, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=800, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    return done.stdout[-300:]
