"""Django's settings for the benchmark: the project's own, with stub providers and the baselines' URLs."""

from __future__ import annotations

from benchmarks import environment
from orderflow.settings import *  # noqa: F403
from orderflow.settings import DATABASES as PROJECT_DATABASES
from orderflow.settings import INSTALLED_APPS as PROJECT_APPS

# Before the project's apps: it reduces the notifications to one per order before they are registered.
INSTALLED_APPS = ["benchmarks", *PROJECT_APPS]
ROOT_URLCONF = "benchmarks.urls"
PAYMENT_GATEWAY = "benchmarks.stub.GuardedGateway"
WAREHOUSE = "benchmarks.stub.GuardedWarehouse"
EMAIL_BACKEND = "benchmarks.stub.MailBackend"
API_RATE_LIMIT = "1000000/minute"

if environment.IS_NAIVE:  # prepared statements are not a default, although planning is most of the work
    PROJECT_DATABASES["default"]["OPTIONS"] |= {"server_side_binding": False, "prepare_threshold": None}
