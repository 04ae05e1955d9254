"""A record of the database in Redis, which reveals when an old copy of the database takes its place."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator

import redis
from django.conf import settings

from outbox import telemetry
from outbox.verification import restores

KEY = "orderflow:database"
KEPT_FOR = dt.timedelta(days=90)
"""How long the record of an unused database is kept, so that Redis is cleaned up eventually."""


class RedisWitness:
    """
    `outbox.verification.restores.Witness` in one Redis key. Without Redis there is no witness, and nothing
    waits for it.
    """

    def recall(self) -> str:
        """See `outbox.verification.restores.Witness.recall`."""
        with _client() as client:
            record = client.get(KEY)
            return record.decode() if isinstance(record, bytes) else ""
        return ""

    def remember(self, record: str) -> None:
        """See `outbox.verification.restores.Witness.remember`."""
        with _client() as client:
            client.set(KEY, record, ex=KEPT_FOR)


def connect() -> None:
    """Give the outbox access to Redis. Called once by `apps.ready()`."""
    restores.use_witness(lambda: RedisWitness() if settings.REDIS_URL else None)


@contextlib.contextmanager
def _client() -> Iterator[redis.Redis]:
    """A client for one command; its failure is emitted as a signal and ends the block."""
    client = redis.Redis.from_url(settings.REDIS_URL, socket_timeout=1, socket_connect_timeout=1)
    with contextlib.closing(client):
        try:
            yield client
        except redis.RedisError as failure:
            telemetry.emit("restores.witness_away", error=str(failure))
