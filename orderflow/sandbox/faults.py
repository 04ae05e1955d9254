"""Faults on request: what a server does wrong, and how often it did."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote_plus

KINDS = {
    "slow": "wait latency_ms, then answer as usual",
    "refuse": "reset the connection at once",
    "error": "answer with `status`, do nothing",
    "rate_limit": "answer 429 with retry_after, do nothing",
    "drop_before": "do nothing and close the connection without an answer",
    "drop_after": "act, then close the connection without an answer",
    "hang": "do nothing, hold the connection for latency_ms, then close it",
    "malformed": "act, then answer 200 with a broken body",
    "state": "act, and leave what is made in `state`, such as processing",
}
DEFAULT_LATENCY_MS = {"slow": 1_000, "hang": 30_000}
LONGEST_LATENCY_MS = 600_000
LONGEST_RETRY_AFTER = 200
# Used-up faults stay listed, so that a test can read how often they struck; the oldest are dropped.
USED_UP_KEPT = 1_000


class Unusable(ValueError):
    """An invalid fault; the message says what is allowed."""


@dataclass(slots=True)
class Fault:
    """One requested fault."""

    id: int
    kind: str
    latency_ms: int = 0
    status: int | None = None  # None: the provider's usual status
    retry_after: int | str | None = None  # None: no Retry-After header
    times: int | None = None  # None: until it is removed
    probability: float = 1.0
    seed: int | None = None  # None: random
    match: str | None = None  # None: every request
    state: str | None = None
    struck: int = 0
    random: random.Random = field(default_factory=random.Random)

    @property
    def active(self) -> bool:
        return self.times is None or self.struck < self.times

    def hits(self, texts: Sequence[str]) -> bool:
        if not self.active or (self.match is not None and not any(self.match in text for text in texts)):
            return False
        return self.probability >= 1 or self.random.random() < self.probability

    def as_json(self) -> dict[str, object]:
        return {
            "id": self.id,
            "fault": self.kind,
            "latency_ms": self.latency_ms,
            "status": self.status,
            "retry_after": self.retry_after,
            "times": self.times,
            "probability": self.probability,
            "seed": self.seed,
            "match": self.match,
            "state": self.state,
            "struck": self.struck,
            "active": self.active,
        }


@dataclass(frozen=True, slots=True)
class Strike:
    """The faults that apply to one request: at most one decides its outcome; the latencies add up."""

    kind: str | None = None
    latency: float = 0.0
    status: int | None = None
    retry_after: int | str | None = None
    state: str | None = None
    names: tuple[str, ...] = ()


class Faults:
    """The faults of one server, in the order they were added. They are lost when the server restarts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._faults: list[Fault] = []

    def add(self, body: object) -> dict[str, object]:
        """
        Add a fault.

        Raises:
            Unusable: if the body is not a valid fault.
        """
        fault = _parsed(body, next(self._ids))
        with self._lock:
            self._faults.append(fault)
            used_up = [fault for fault in self._faults if not fault.active]
            for old in used_up[:-USED_UP_KEPT]:
                self._faults.remove(old)
            return fault.as_json()

    def listing(self) -> list[dict[str, object]]:
        with self._lock:
            return [fault.as_json() for fault in self._faults]

    def remove(self, fault_id: int | None = None) -> int:
        """Remove one fault, or all of them, and return how many there were."""
        with self._lock:
            staying = [fault for fault in self._faults if fault_id is not None and fault.id != fault_id]
            removed = len(self._faults) - len(staying)
            self._faults = staying
            return removed

    def strike(self, *texts: str | None, kinds: Collection[str] = KINDS.keys()) -> Strike:
        """
        Select the faults for one request.

        Every `slow` that matches adds its latency; of the others the first that matches decides.

        Args:
            texts: what `match` is compared with: key, path, body.
            kinds: the kinds that can apply at this point of the exchange.
        """
        if not self._faults:
            return Strike()
        present = [text for text in texts if text]
        struck: list[Fault] = []
        with self._lock:
            for fault in self._faults:
                decided = any(other.kind != "slow" for other in struck)
                if fault.kind not in kinds or (decided and fault.kind != "slow") or not fault.hits(present):
                    continue
                fault.struck += 1
                struck.append(fault)
        decisive = next((fault for fault in struck if fault.kind != "slow"), None)
        return Strike(
            kind=decisive.kind if decisive else None,
            latency=sum(fault.latency_ms for fault in struck) / 1000,
            status=decisive.status if decisive else None,
            retry_after=decisive.retry_after if decisive else None,
            state=decisive.state if decisive else None,
            names=tuple(fault.kind for fault in struck),
        )

    def would_strike(self, kind: str) -> bool:
        """Return whether a fault of this kind applies to everybody; that does not count as a strike."""
        with self._lock:
            return any(fault.kind == kind and fault.active and not fault.match for fault in self._faults)


def readable(body: bytes) -> tuple[str, str]:
    """Return a path or body both raw and decoded: `match` may be written either way."""
    text = body.decode("utf-8", "replace")
    return text, unquote_plus(text) if "%" in text or "+" in text else ""


def _parsed(body: object, fault_id: int) -> Fault:
    if not isinstance(body, dict):
        raise Unusable('A fault is a JSON object such as {"fault": "error", "status": 503, "times": 1}.')
    known = ["fault", "latency_ms", "status", "retry_after", "times", "probability", "seed", "match", "state"]
    if unknown := sorted(str(name) for name in body.keys() - set(known)):
        raise Unusable(f"Nothing is known about {', '.join(unknown)}; a fault has {', '.join(known)}.")
    kind = body.get("fault")
    if not isinstance(kind, str) or kind not in KINDS:
        meanings = "; ".join(f"{name} ({meaning})" for name, meaning in KINDS.items())
        raise Unusable(f'"fault" must be one of: {meanings}.')
    seed = _whole(body, "seed", -(2**63), 2**63 - 1)
    latency_ms = _whole(body, "latency_ms", 0, LONGEST_LATENCY_MS)
    return Fault(
        id=fault_id,
        kind=kind,
        latency_ms=DEFAULT_LATENCY_MS.get(kind, 0) if latency_ms is None else latency_ms,
        status=_whole(body, "status", 400, 599),
        retry_after=_retry_after(body),
        times=_whole(body, "times", 1, 2**31),
        probability=_probability(body),
        seed=seed,
        match=_text(body, "match"),
        state=_state(body, kind),
        random=random.Random(seed),  # noqa: S311 (repeatable is the point)
    )


def _whole(body: dict[object, object], name: str, least: int, most: int) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise Unusable(f'"{name}" must be a whole number from {least} to {most}, or null.')
    return value


def _state(body: dict[object, object], kind: str) -> str | None:
    value = body.get("state")
    if kind != "state" and value is None:
        return None
    if kind == "state" and isinstance(value, str) and value:
        return value
    raise Unusable('"state" is the text that the fault "state" leaves as the status of what is made.')


def _retry_after(body: dict[object, object]) -> int | str | None:
    """Seconds; or any text, for providers that send something else."""
    value = body.get("retry_after")
    if isinstance(value, str) and len(value) <= LONGEST_RETRY_AFTER and value.isprintable():
        return value
    return _whole(body, "retry_after", 0, 86_400)


def _probability(body: dict[object, object]) -> float:
    value = body.get("probability")
    if value is None:
        return 1.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise Unusable('"probability" must be a number from 0 to 1, or null for always.')
    return float(value)


def _text(body: dict[object, object], name: str) -> str | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        raise Unusable(
            f'"{name}" must be a text that occurs in the key, path or body of a request, or null for all.'
        )
    return value
