"""
What may go wrong with an outside call, how often it is tried again, and when nobody should try at all.

The two bases of all anticipated errors are `Transient` and `Permanent`. `NotNow` is the transient
error that is nobody's fault: the work waits and spends no attempt.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import importlib
import random
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from django.conf import settings


class Transient(Exception):
    """Worth another try: the same call may succeed later."""

    def __init__(self, *args: object, retry_after: dt.timedelta | None = None) -> None:
        super().__init__(*args)
        self.retry_after = retry_after


class Permanent(Exception):
    """Trying again cannot help; somebody has to change something first."""


class NotNow(Transient):
    """The work has to wait for something outside of it. Waiting spends no attempt."""


class Outage(NotNow):
    """A whole dependency is down or says so; none of the messages waiting for it is to blame."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """
    How often a consumer tries, in two stages.

    `attempts` quick tries in the worker, `first_wait` doubling up to `longest_wait` apart; then one
    redelivery from the database after each of `redelivery_waits`, each with `attempts` tries again.
    The tries in all are `attempts * (1 + len(redelivery_waits))`; then the message is buried.
    """

    attempts: int = 3
    first_wait: dt.timedelta = dt.timedelta(seconds=1)
    longest_wait: dt.timedelta = dt.timedelta(seconds=8)
    redelivery_waits: Sequence[dt.timedelta] = (
        dt.timedelta(minutes=1),
        dt.timedelta(minutes=5),
        dt.timedelta(minutes=30),
        dt.timedelta(hours=2),
    )

    def task_options(self) -> dict[str, Any]:
        """The policy as options of `shared_task`: Celery's autoretry does the quick tries."""
        return {
            "policy": self,
            "autoretry_for": (Transient,),
            "dont_autoretry_for": (NotNow,),
            "max_retries": self.attempts - 1,
            "retry_backoff": max(1, round(self.first_wait.total_seconds())),
            "retry_backoff_max": max(1, round(self.longest_wait.total_seconds())),
            "retry_jitter": True,
        }

    def quick_wait(self, retries: int) -> int:
        """
        Seconds before quick try number `retries` + 2: between half of the doubled wait and all of it.

        Celery's own full jitter may be 0; a floor keeps a dead provider from being hammered. Whole
        seconds of at least 1, because RabbitMQ's delayed delivery refuses less.
        """
        ceiling = min(self.longest_wait, self.first_wait * 2**retries).total_seconds()
        return max(1, round(random.uniform(ceiling / 2, ceiling)))  # noqa: S311 - jitter, no secret

    def redelivery_wait(self, rounds: int) -> dt.timedelta | None:
        """The wait after `rounds` failed rounds, or None when it is time to give up."""
        if rounds < len(self.redelivery_waits):
            return self.redelivery_waits[rounds]
        return None


class Breaker(Protocol):
    """A circuit breaker for one provider, its state shared by all workers."""

    def guard(self) -> contextlib.AbstractContextManager[None]:
        """
        Guard one call.

        Raises:
            Outage: instead of calling, while the circuit is open; and in place of a `Transient`
                error of the call when that error opened the circuit or failed its probe.
        """
        ...

    def state(self) -> str:
        """`closed`, `open` or `half-open`."""
        ...


class AlwaysClosed:
    """A breaker that never opens: for tests of what lies behind it, and for providers of no need."""

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        yield

    def state(self) -> str:
        return "closed"


def breaker(name: str) -> Breaker:
    """The breaker of the provider `name`, built by the factory that settings name (`BREAKER_FACTORY`)."""
    module, _, attribute = settings.BREAKER_FACTORY.rpartition(".")
    made: Breaker = getattr(importlib.import_module(module), attribute)(name)
    return made
