"""
What the strip asks of the broker and of Redis. Both may hang: the page reads the answers through `patience`.
"""

from __future__ import annotations

import dataclasses
import time

from orderflow.ops.overview.patience import Question
from orderflow.shared_state import breakers, credentials
from outbox.broker import inspection
from outbox.broker.inspection import QueueLength
from outbox.resilience import Circuit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Broker:
    """An answer of the broker."""

    milliseconds: float
    queues: dict[str, QueueLength]
    wrong_keys: dict[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Providers:
    """What all processes know about the providers, from Redis."""

    circuits: dict[str, Circuit]
    refused: dict[str, str]
    """Providers that refuse our settings, and why."""


def _ask_broker() -> Broker:
    began = time.monotonic()
    queues = inspection.lengths()
    took = 1000 * (time.monotonic() - began)
    return Broker(milliseconds=took, queues=queues, wrong_keys=inspection.wrong_keys())


def _ask_redis() -> Providers:
    return Providers(circuits=breakers.circuits(), refused=credentials.refused())


broker = Question(_ask_broker)
providers = Question(_ask_redis)
