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
import math
import random
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from outbox.conf import settings
from outbox.database import storable

SPREAD, LONGEST_SPREAD = 0.2, dt.timedelta(seconds=30)
"""By how much of itself a wait in the database is lengthened at most, so that not all come back at once."""

FEWEST_WHOLE_SECONDS = 3
"""Between how many waits a try chooses at least where the broker knows whole seconds only."""

MOST_DOUBLINGS = 32
"""Beyond any longest wait; what a message says of its retries may be any number."""


class Transient(Exception):
    """Worth another try: the same call may succeed later. What it says can be stored."""

    def __init__(self, *args: object, retry_after: dt.timedelta | None = None) -> None:
        super().__init__(*_storable(args))
        self.retry_after = retry_after


class Permanent(Exception):
    """Trying again cannot help; somebody has to change something first. What it says can be stored."""

    def __init__(self, *args: object) -> None:
        super().__init__(*_storable(args))


def _storable(args: Sequence[object]) -> list[object]:
    """Much of what these errors say was said by somebody outside."""
    return [storable.note(arg) if isinstance(arg, str) else arg for arg in args]


class NotNow(Transient):
    """The work has to wait for something outside of it. Waiting spends no attempt."""


class Outage(NotNow):
    """A whole dependency is down or says so; none of the messages waiting for it is to blame."""


class SettingsRefused(Outage):
    """
    A provider does nothing for anybody until somebody corrects a setting of ours, such as the sender.

    The text says which settings, and nothing of what is in them.
    """

    def __init__(self, what: str, *, settings: str) -> None:
        super().__init__(f"{what}: correct {settings}")


class CredentialsRefused(SettingsRefused):
    """A provider does not take our credentials."""

    def __init__(self, provider: str, *, settings: str, answer: object) -> None:
        super().__init__(f"{provider} does not take our credentials (it answered {answer})", settings=settings)


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

    def quick_wait(
        self, retries: int, *, wished: dt.timedelta | None = None, whole_seconds: bool = False
    ) -> float:
        """
        Seconds before quick try number `retries` + 2: at random, never less than `first_wait`.

        The range doubles with each try, and begins at half of its end. A wait that the provider has
        `wished` for is kept, up to `longest_wait`: on Redis a task that waits in a worker is delivered again
        once the visibility timeout passes (see celeryconfig).
        """
        first, longest = self.first_wait.total_seconds(), self.longest_wait.total_seconds()
        most = min(longest, first * 2.0 ** min(retries + 1, MOST_DOUBLINGS))
        least = max(first, most / 2, min(longest, wished.total_seconds() if wished else 0.0))
        if whole_seconds:
            least = max(1, math.ceil(least))
            return random.randint(least, max(int(most), least + FEWEST_WHOLE_SECONDS - 1))  # noqa: S311 - jitter
        return random.uniform(least, max(least, most))  # noqa: S311 - jitter, no secret

    def redelivery_wait(self, rounds: int) -> dt.timedelta | None:
        """The wait after `rounds` failed rounds, or None when it is time to give up."""
        if rounds < len(self.redelivery_waits):
            return self.redelivery_waits[rounds]
        return None


def spread(wait: dt.timedelta) -> dt.timedelta:
    """A wait of at least `wait`, lengthened at random: what failed together does not come back together."""
    return wait + min(wait * SPREAD, LONGEST_SPREAD) * random.random()  # noqa: S311 - jitter, no secret


@dataclasses.dataclass(frozen=True, kw_only=True)
class Circuit:
    """
    How a breaker stands for all processes that share it, by the clock of the server that they share.

    `open_seconds` counts from the moment at which it was last closed, however many probes failed since. Times
    are None when it is closed, or when nobody knows them.
    """

    state: str
    """`closed`, `open`, `half-open`, or `unknown` when the shared state cannot be read."""
    open_seconds: float | None = None
    next_probe_seconds: float | None = None


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
        """`closed`, `open` or `half-open`, as far as this process knows."""
        ...

    def circuit(self) -> Circuit:
        """How it stands for all processes, read where they share it."""
        ...


class AlwaysClosed:
    """A breaker that never opens: for tests of what lies behind it, and for providers of no need."""

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        yield

    def state(self) -> str:
        return "closed"

    def circuit(self) -> Circuit:
        return Circuit(state="closed")


def always_closed(name: str) -> Breaker:
    """A factory for breakers that never open: the default of `OUTBOX_BREAKER_FACTORY`."""
    return AlwaysClosed()


def breaker(name: str) -> Breaker:
    """The breaker of the provider `name`, built by the factory that `OUTBOX_BREAKER_FACTORY` names."""
    module, _, attribute = settings.BREAKER_FACTORY.rpartition(".")
    made: Breaker = getattr(importlib.import_module(module), attribute)(name)
    return made
