"""
Circuit breakers whose state all workers share through Redis, behind `outbox.resilience.Breaker`.

Breakers are created per process: one that was created before a fork has lost the thread that writes the shared
state. Without Redis a breaker uses what its own process observes. The overall state of a breaker is read from
Redis: a process that has made no call does not know it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import os
import threading
from collections.abc import Iterator
from typing import Any

import redis
from django.conf import settings
from django.db import connection
from interlock import CircuitBreaker, CircuitOpenError, Config, State
from interlock.integrations.redis import RedisStorage
from interlock.shared import ProbeLease, SharedState

from orderflow.providers import CONSUMERS
from orderflow.shared_state import credentials
from outbox import resilience
from outbox.resilience import Circuit, NotNow, Outage, SettingsRefused, Transient

CONFIG = Config(
    # Three failed calls in a row open it: as many as one message's quick retries, so that a message that meets
    # a dead provider alone waits for the breaker before it has used up its attempts.
    minimum_number_of_calls=3,
    failure_rate_threshold=0.6,
    window_size=10,
    slow_call_duration_threshold=4.0,
    slow_call_rate_threshold=1.0,
    wait_duration_in_open=15.0,
    permitted_calls_in_half_open=2,
)

MOST_COUNTED = 10_000
"""Waiting messages are counted up to this number."""

PROBE_ENDS_WITHIN = dt.timedelta(seconds=40)
"""A probe that has not ended by then never will: its worker died. Longer than the time limit of tasks."""

_made: dict[tuple[int, str], SharedBreaker] = {}
_making = threading.Lock()


def shared_breaker(name: str) -> SharedBreaker:
    """This process's breaker for the provider `name`."""
    key = (os.getpid(), name)
    if found := _made.get(key):
        return found
    with _making:  # two breakers of one provider would each see a part of its calls
        return _made.setdefault(key, _made.get(key) or SharedBreaker(name))


class _CountsTransient:
    """Only technical failures count: a declined card is a response, and so is "not now" for one order."""

    def is_failure(self, *, result: object, exception: Exception | None) -> bool:
        if isinstance(exception, NotNow):
            return isinstance(exception, Outage)
        return isinstance(exception, Transient)


REOPEN_ABANDONED = """
local key, now = KEYS[1], redis.call('TIME')
now = now[1] * 1000000 + now[2]
local state, version = unpack(redis.call('HMGET', key, 'state', 'version'))
if state ~= 'half_open' then return end
local seen, since = unpack(redis.call('HMGET', key, 'refused_version', 'refused_at'))
if seen ~= version then
  redis.call('HSET', key, 'refused_version', version, 'refused_at', now)
elseif now - since >= tonumber(ARGV[1]) then
  redis.call('HSET', key, 'state', 'open', 'version', version + 1)
end
"""
"""A round of probes without any activity for this long is over. The next one begins at once, because
`opened_at` is long ago."""


class Storage(RedisStorage):
    """The shared state, including when a breaker was opened, and when its probes were abandoned."""

    _client: redis.Redis

    def trip_open(self, *, name: str, ttl: float, expected_version: int | None = None) -> SharedState:
        before = self.read(name)
        after = super().trip_open(name=name, ttl=ttl, expected_version=expected_version)
        if after.state is State.OPEN and (before is None or before.state is State.CLOSED):
            self._client.hset(self._key(name), "open_since", str(after.opened_at))
        return after

    def lease_probe(self, *, name: str, ttl: float) -> ProbeLease:
        """
        Lease a probe; if all are taken and none has reported for long, start a new round.

        A worker that is killed during its probe never reports it, and no other call would ever be let through.
        """
        lease = super().lease_probe(name=name, ttl=ttl)
        if not lease.granted:
            limit = PROBE_ENDS_WITHIN / dt.timedelta(microseconds=1)
            self._client.eval(REOPEN_ABANDONED, 1, self._key(name), str(limit))
        return lease

    def circuit(self, name: str, *, wait: float) -> Circuit:
        """
        Return the state of the breaker; `wait` is the number of seconds between its opening and its next probe.

        Raises:
            redis.RedisError: if Redis does not respond.
        """
        shared = self.read(name)
        if shared is None or shared.state is State.CLOSED:
            return Circuit(state="closed")
        seconds, microseconds = self._client.time()
        now = seconds + microseconds / 1_000_000
        since = float(self._client.hget(self._key(name), "open_since") or shared.opened_at)
        return Circuit(
            state=_name_of(shared.state),
            open_seconds=round(max(0.0, now - since), 1),
            next_probe_seconds=round(max(0.0, shared.opened_at + wait - now), 1),
        )


class SharedBreaker:
    """A breaker of interlock-cb that raises the project's errors."""

    def __init__(self, name: str, *, config: Config = CONFIG, url: str | None = None) -> None:
        url = settings.REDIS_URL if url is None else url
        storage = (
            Storage(
                redis.Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1),
                key_prefix="breaker:",
                poll_interval=1.0,
            )
            if url
            else None
        )
        self._storage = storage
        self._breaker = CircuitBreaker(name=name, config=config, classifier=_CountsTransient(), storage=storage)
        self._open_for = dt.timedelta(seconds=config.wait_duration_in_open)

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """See `outbox.resilience.Breaker.guard`."""
        was_closed = self._breaker.state is State.CLOSED
        try:
            with self._breaker:
                yield
            if not was_closed:
                credentials.forget_refusal(self._breaker.name)
        except CircuitOpenError as refused:
            wait = dt.timedelta(seconds=refused.retry_after or 0) or self._open_for
            because = credentials.refusal_of(self._breaker.name) or f"{self._breaker.name} is not answering"
            raise Outage(because, retry_after=wait) from refused
        except SettingsRefused as refused:
            credentials.note_refused(self._breaker.name, str(refused))
            raise
        except NotNow:
            raise
        except Transient as failure:
            if self._breaker.state in (State.OPEN, State.HALF_OPEN):
                raise Outage(
                    f"{self._breaker.name} is not answering: {failure}",
                    retry_after=failure.retry_after or self._open_for,
                ) from failure
            raise

    def state(self) -> str:
        """`closed`, `open` or `half-open`, as known to this process."""
        return _name_of(self._breaker.state)

    def circuit(self) -> Circuit:
        """See `outbox.resilience.Breaker.circuit`. Without Redis it describes only this process."""
        if self._storage is None:
            return Circuit(state=self.state())
        try:
            return self._storage.circuit(self._breaker.name, wait=self._open_for.total_seconds())
        except redis.RedisError:
            return Circuit(state="unknown")


def _name_of(state: State) -> str:
    return state.name.lower().replace("_", "-")


def circuits() -> dict[str, Circuit]:
    """Return the state of all breakers."""
    found: dict[str, Circuit] = {}
    for name in CONSUMERS:
        # One server stores all of them; a second query would only wait for the timeout again.
        silent = next((one for one in found.values() if one.state == "unknown"), None)
        found[name] = silent or resilience.breaker(name).circuit()
    return found


def states() -> dict[str, dict[str, Any]]:
    """Return the state of all breakers, and the number of messages that wait for each that is not closed."""
    return {
        name: {"state": "closed"}
        if circuit.state == "closed"
        else dataclasses.asdict(circuit) | {"waiting": _waiting(CONSUMERS[name])}
        for name, circuit in circuits().items()
    }


def _waiting(consumers: list[str]) -> int:
    """
    Return the number of messages that are unfinished because one of the consumers waits for its provider.

    A message counts while it is retried or queued for it, as well as while it waits.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT count(*) FROM (
                (SELECT id FROM outbox_outboxmessage WHERE status = 'pending' LIMIT %(most)s)
                UNION (SELECT message_id FROM outbox_delivery WHERE status = 'waiting' LIMIT %(most)s)
                UNION (SELECT message_id FROM outbox_delivery WHERE status = 'sent' LIMIT %(most)s)
            ) AS message
            WHERE EXISTS (
                SELECT FROM unnest(%(consumers)s::text[]) AS one (consumer)
                JOIN LATERAL (
                    SELECT outcome FROM outbox_attempt
                    WHERE message_id = message.id AND consumer = one.consumer ORDER BY id DESC LIMIT 1
                ) AS last ON last.outcome = 'waited'
            )
            """,
            {"most": MOST_COUNTED, "consumers": consumers},
        )
        return int(cursor.fetchone()[0])
