"""
Errors of outside calls, retry policies, and circuit breakers.

All anticipated errors derive from `Transient` or `Permanent`. `NotNow` is a transient error that the message
has not caused: the work waits and spends no attempt.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import importlib
import math
import random
import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from outbox import telemetry
from outbox.conf import settings
from outbox.database import sessions, storable

SPREAD, LONGEST_SPREAD = 0.2, dt.timedelta(seconds=30)
"""The maximum part of itself, and the maximum time, by which a wait in the database is lengthened at random, so
that not all messages come back at once."""

FEWEST_WHOLE_SECONDS = 3
"""The minimum number of waits to choose from where the broker supports whole seconds only."""

MOST_DOUBLINGS = 32
"""More doublings than any wait needs. A message may claim any number of retries."""


class Transient(Exception):
    """The same call may succeed later. The arguments are made storable."""

    def __init__(self, *args: object, retry_after: dt.timedelta | None = None) -> None:
        super().__init__(*_storable(args))
        self.retry_after = retry_after


class Permanent(Exception):
    """The same call cannot succeed before somebody changes something. The arguments are made storable."""

    def __init__(self, *args: object) -> None:
        super().__init__(*_storable(args))


def _storable(args: Sequence[object]) -> list[object]:
    """Make texts storable, because many of them come from outside."""
    return [storable.note(arg) if isinstance(arg, str) else arg for arg in args]


class NotNow(Transient):
    """The work has to wait for something else. Waiting spends no attempt."""


class Outage(NotNow):
    """A whole dependency is unavailable; no message is the cause."""


class SettingsRefused(Outage):
    """
    A provider refuses all requests until a setting, such as the sender, is corrected.

    The text names the settings and never contains their values.
    """

    def __init__(self, what: str, *, settings: str) -> None:
        super().__init__(f"{what}: correct {settings}")


class CredentialsRefused(SettingsRefused):
    """A provider rejects our credentials."""

    def __init__(self, provider: str, *, settings: str, answer: object) -> None:
        super().__init__(f"{provider} rejects our credentials (it answered {answer})", settings=settings)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """
    How often a consumer tries, in two stages.

    A round is `attempts` quick tries in the worker. The waits between them begin with `first_wait` and double
    up to `longest_wait`. After each of `redelivery_waits` the database redelivers the message for another
    round. After `attempts * (1 + len(redelivery_waits))` tries the message is buried.
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
        """Return the policy as options of `shared_task`: Celery's autoretry makes the quick tries."""
        return {
            "policy": self,
            "autoretry_for": (Transient,),
            "dont_autoretry_for": (NotNow,),
            "max_retries": self.attempts - 1,
            "retry_backoff": max(1, round(self.first_wait.total_seconds())),
            "retry_backoff_max": max(1, round(self.longest_wait.total_seconds())),
            "retry_jitter": True,
        }

    def quick_wait(
        self, retries: int, *, requested: dt.timedelta | None = None, whole_seconds: bool = False
    ) -> float:
        """
        Return a random number of seconds to wait before quick try number `retries` + 2.

        The range doubles with each try and begins at half of its end, but never below `first_wait`. A wait
        `requested` by the provider is respected up to `longest_wait`: on Redis, a task that waits in a worker
        is delivered again once the visibility timeout passes (see celeryconfig).
        """
        first, longest = self.first_wait.total_seconds(), self.longest_wait.total_seconds()
        most = min(longest, first * 2.0 ** min(retries + 1, MOST_DOUBLINGS))
        least = max(first, most / 2, min(longest, requested.total_seconds() if requested else 0.0))
        if whole_seconds:
            least = max(1, math.ceil(least))
            return random.randint(least, max(int(most), least + FEWEST_WHOLE_SECONDS - 1))  # noqa: S311 - jitter
        return random.uniform(least, max(least, most))  # noqa: S311 - jitter, no secret

    def redelivery_wait(self, rounds: int) -> dt.timedelta | None:
        """Return the wait after `rounds` failed rounds, or None if the message must be given up."""
        if rounds < len(self.redelivery_waits):
            return self.redelivery_waits[rounds]
        return None


DEFAULT_TASK_POLICY = RetryPolicy()
"""The default of `OUTBOX_TASK_POLICY`: three attempts, and three more after 1, 5 and 30 minutes and 2 hours."""


def task_policy() -> RetryPolicy:
    """The policy of the tasks of Django's framework, which `OUTBOX_TASK_POLICY` names."""
    policy: RetryPolicy = _named(settings.TASK_POLICY)
    return policy


def spread(wait: dt.timedelta) -> dt.timedelta:
    """Return `wait`, lengthened at random so that messages that failed together do not come back together."""
    return wait + min(wait * SPREAD, LONGEST_SPREAD) * random.random()  # noqa: S311 - jitter, no secret


@dataclasses.dataclass(frozen=True, kw_only=True)
class Circuit:
    """
    The state of a breaker for all processes that share it, by the clock of the server that holds the state.

    `open_seconds` counts from the moment when the breaker was last closed, however many probes have failed
    since. Times are None if the breaker is closed or the times are not known.
    """

    state: str
    """`closed`, `open`, `half-open`, or `unknown` if the shared state cannot be read."""
    open_seconds: float | None = None
    next_probe_seconds: float | None = None


class Breaker(Protocol):
    """A circuit breaker for one provider. All workers share its state."""

    def guard(self) -> contextlib.AbstractContextManager[None]:
        """
        Guard one call.

        Raises:
            Outage: instead of calling, while the circuit is open; and in place of a `Transient`
                error of the call when that error opened the circuit or failed its probe.
        """
        ...

    def state(self) -> str:
        """Return `closed`, `open` or `half-open`, as far as this process knows."""
        ...

    def circuit(self) -> Circuit:
        """Read and return the state that all processes share."""
        ...


class AlwaysClosed:
    """A breaker that never opens, for tests and for providers that need no breaker."""

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        yield

    def state(self) -> str:
        return "closed"

    def circuit(self) -> Circuit:
        return Circuit(state="closed")


def always_closed(name: str) -> Breaker:
    """Return a breaker that never opens. This is the default of `OUTBOX_BREAKER_FACTORY`."""
    return AlwaysClosed()


class _Guarded:
    """A breaker whose calls are made without a database session, and hold a place of their provider."""

    def __init__(self, name: str, made: Breaker) -> None:
        self._name, self._made = name, made
        self.state, self.circuit = made.state, made.circuit

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        from outbox import bulkheads  # its errors are based on this module's

        sessions.give_back_before_call(self._name)
        with telemetry.span("call", self._name, telemetry.CLIENT) as span:
            if span:
                span.set({"service.peer.name": self._name})
            # Outside of the breaker, which would count a call that is not made as a success.
            with bulkheads.hold(self._name), self._made.guard(), _reported(self._name):
                yield


@contextlib.contextmanager
def _reported(provider: str) -> Iterator[None]:
    """Report the call that is made inside the block: how it ended and how long it took."""
    outcome, began = "succeeded", time.perf_counter()
    try:
        yield
    except BaseException as error:
        outcome = outcome_of(error)
        raise
    finally:
        seconds = time.perf_counter() - began
        telemetry.emit("provider.called", provider=provider, outcome=outcome, seconds=seconds)


def outcome_of(error: BaseException) -> str:
    """
    Return the class of a provider's error: `outage`, `transient` or `permanent`.

    `other` are answers that are no failure of the provider, such as a declined card, and interrupted calls.
    """
    if isinstance(error, Outage):
        return "outage"
    if isinstance(error, Transient):
        return "transient"
    return "permanent" if isinstance(error, Permanent) else "other"


def breaker(name: str) -> Breaker:
    """
    Return the breaker of the provider `name`, built by the factory in `OUTBOX_BREAKER_FACTORY`.

    Every call of a provider passes its guard, so this is the place where a thread gives its database sessions
    back for as long as it waits (see `outbox.database.sessions`), and where the threads that wait for one
    provider are bounded (see `outbox.bulkheads`).
    """
    return _Guarded(name, _named(settings.BREAKER_FACTORY)(name))


def _named(path: str) -> Any:
    """What is at a dotted path."""
    module, _, attribute = path.rpartition(".")
    return getattr(importlib.import_module(module), attribute)
