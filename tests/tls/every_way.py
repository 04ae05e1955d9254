"""
Connect in every way in which the project does, with the settings of the environment; print how each one went.

A process of its own: settings are read once, and Celery's configuration is shared by all tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator

import django

django.setup()

import kombu  # noqa: E402 - and below: all of it reads settings
import redis  # noqa: E402
from celery import current_app  # noqa: E402
from django.conf import settings  # noqa: E402
from django.db import connection  # noqa: E402
from flower.utils.broker import Broker  # noqa: E402

from orderflow.shared_state import breakers, credentials, witness  # noqa: E402
from orderflow.stack.servers import given  # noqa: E402
from orders.api import limits  # noqa: E402
from outbox.relay import listener  # noqa: E402


def open_link(link: kombu.Connection) -> None:
    with link:
        link.ensure_connection(max_retries=1, interval_start=0, timeout=3)
        link.default_channel.queue_declare("tests-tls", auto_delete=True)


def flower_reads_queues() -> None:
    uri = current_app.connection(connect_timeout=1.0).as_uri(include_password=True)
    options = {"broker_use_ssl": current_app.conf.broker_use_ssl}
    asyncio.run(Broker(uri, broker_options={}, **options).queues(["orders"]))


def before_anything_starts(name: str) -> Callable[[], None]:
    def ask() -> None:
        if problem := given.complaint(name, os.environ[name]):
            raise ConnectionError(problem)

    return ask


def remember() -> None:
    """Store and read a value. `witness` handles failures itself, so `ping` raises them first."""
    with contextlib.closing(redis.Redis.from_url(settings.REDIS_URL)) as client:
        client.ping()
    witness.RedisWitness().remember("test")
    assert witness.RedisWitness().recall() == "test"


def ways() -> Iterator[tuple[str, Callable[[], object]]]:
    rate = limits.limits.parse("10/second")
    yield "celery, writing", lambda: open_link(current_app.connection_for_write())
    yield "celery, reading", lambda: open_link(current_app.connection_for_read())
    yield "kombu alone", lambda: open_link(kombu.Connection(os.environ["BROKER_URL"], connect_timeout=2))
    yield "run.py, broker", before_anything_starts("BROKER_URL")
    if settings.BROKER_URL.startswith("redis"):
        yield "flower", flower_reads_queues
    yield "limits", lambda: limits._limiter().hit(rate, "tests-tls")
    yield "breakers", lambda: breakers.SharedBreaker("tests-tls")._storage.circuit("tests-tls", wait=1)
    yield "credentials", lambda: credentials._shared(settings.REDIS_URL).ping()
    yield "witness", remember
    yield "run.py, redis", before_anything_starts("REDIS_URL")
    yield "django", connection.ensure_connection
    yield "listener", lambda: listener._connect().close()
    yield "run.py, database", before_anything_starts("DATABASE_URL")


if __name__ == "__main__":
    went = {}
    for name, connect in ways():
        try:
            connect()
            went[name] = ""
        except Exception as failure:  # of four libraries; the test reads them all
            went[name] = f"{type(failure).__name__}: {failure} {failure.__cause__ or ''}"
    json.dump(went, sys.stdout)
