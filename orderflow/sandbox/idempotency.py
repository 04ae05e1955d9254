"""
Idempotency keys of a provider: one key, one effect, however often and however concurrently it is requested.

Responses are stored in the ledger, in the same transaction as the effect. Requests in flight are known only to
the process: a killed server has none.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .ledger import Ledger
from .messages import Answer

# As Stripe documents it; other providers follow.
LONGEST_KEY = 255


class KeyInFlight(Exception):
    """Another request with this key is still in progress."""


class KeyReused(Exception):
    """This key was used before, for a different request."""

    def __init__(self, endpoint: str, *, same_endpoint: bool) -> None:
        super().__init__(endpoint)
        self.endpoint = endpoint
        self.same_endpoint = same_endpoint


@dataclass(frozen=True, slots=True)
class Effect:
    """The result of an action: the response, and the ledger entry it belongs to, if any."""

    answer: Answer
    seq: int | None


class Keys:
    """
    The keys that one provider has seen.

    Args:
        lifetime: seconds until a key is dropped; None keeps it forever.
    """

    def __init__(self, ledger: Ledger, *, lifetime: float | None) -> None:
        self._ledger = ledger
        self._lifetime = lifetime
        self._lock = threading.Lock()
        self._in_flight: set[str] = set()

    def once(
        self, key: str, *, endpoint: str, fingerprint: str, act: Callable[[], Effect], pause: Callable[[], None]
    ) -> tuple[Answer, bool]:
        """
        Act, unless this key has acted before; return the response, and whether it is the stored one.

        If `act` raises, nothing has happened and nothing is stored: the key can be used again. `pause` is
        called before acting; a slow provider spends its time there.

        Raises:
            KeyInFlight: if another request with this key is in progress.
            KeyReused: if the key belongs to a different request.
        """
        with self._flight(key):
            if remembered := self._recall(key, endpoint, fingerprint):
                return remembered, True
            pause()
            with self._ledger.transaction():
                effect = act()
                self._remember(key, endpoint, fingerprint, effect)
            return effect.answer, False

    @contextlib.contextmanager
    def _flight(self, key: str) -> Iterator[None]:
        with self._lock:
            if key in self._in_flight:
                raise KeyInFlight(key)
            self._in_flight.add(key)
        try:
            yield
        finally:
            with self._lock:
                self._in_flight.discard(key)

    def _recall(self, key: str, endpoint: str, fingerprint: str) -> Answer | None:
        with self._ledger.transaction() as connection:
            row = connection.execute(
                "SELECT endpoint, fingerprint, status, headers, body, seq, remembered_at"
                " FROM keys WHERE key = ?",
                (key,),
            ).fetchone()
            if row is None:
                return None
            first_endpoint, first_fingerprint, status, headers, body, seq, remembered_at = row
            if self._lifetime is not None and remembered_at + self._lifetime <= time.time():
                connection.execute("DELETE FROM keys WHERE key = ?", (key,))
                return None
            if (first_endpoint, first_fingerprint) != (endpoint, fingerprint):
                raise KeyReused(first_endpoint, same_endpoint=first_endpoint == endpoint)
            if seq is not None:
                self._ledger.count_again(seq)
            return Answer(status, body, headers=json.loads(headers))

    def _remember(self, key: str, endpoint: str, fingerprint: str, effect: Effect) -> None:
        answer = effect.answer
        assert isinstance(answer.body, bytes)
        with self._ledger.transaction() as connection:
            connection.execute(
                "INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    key,
                    endpoint,
                    fingerprint,
                    answer.status,
                    json.dumps(answer.headers),
                    answer.body,
                    effect.seq,
                    time.time(),
                ),
            )
