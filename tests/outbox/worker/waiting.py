"""A task that waits as for a provider, and counts its runs in Redis."""

from __future__ import annotations

import os
import time

import redis
from celery import shared_task

CALL = 0.05
DONE = "tests.waited"

_counter = redis.Redis.from_url(os.environ["COUNTER_URL"])


@shared_task(acks_late=True)
def wait() -> None:
    time.sleep(CALL)
    _counter.incr(DONE)
