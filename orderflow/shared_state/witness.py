"""What Redis remembers of the database, so that a copy of the server's old files in their place is noticed."""

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
"""A database that nobody has used for longer is not remembered; what is left in Redis has an end."""


class RedisWitness:
    """
    `outbox.verification.restores.Witness` in one key. With Redis away there is no witness, and nothing waits
    for it.
    """

    def recall(self) -> str:
        """See `outbox.verification.restores.Witness.recall`."""
        with _client() as client:
            said = client.get(KEY)
            return said.decode() if isinstance(said, bytes) else ""
        return ""

    def remember(self, said: str) -> None:
        """See `outbox.verification.restores.Witness.remember`."""
        with _client() as client:
            client.set(KEY, said, ex=KEPT_FOR)


def connect() -> None:
    """Let the outbox ask Redis. Called once by `apps.ready()`."""
    restores.use_witness(lambda: RedisWitness() if settings.REDIS_URL else None)


@contextlib.contextmanager
def _client() -> Iterator[redis.Redis]:
    """A connection for one question; its failure is stated, and ends the block."""
    client = redis.Redis.from_url(settings.REDIS_URL, socket_timeout=1, socket_connect_timeout=1)
    with contextlib.closing(client):
        try:
            yield client
        except redis.RedisError as failure:
            telemetry.emit("restores.witness_away", error=str(failure))
