"""
Facts about what happens, in the past tense: `emit("message.buried", consumer=…)`.

Knows no vendor. `orderflow.observability` registers receivers that log, count and trace.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeAlias

Receiver: TypeAlias = Callable[[str, dict[str, Any]], None]

_receivers: list[Receiver] = []
_logger = logging.getLogger(__name__)


def register(receiver: Receiver) -> None:
    """Hand every fact from now on to `receiver` too; registering it again changes nothing."""
    if receiver not in _receivers:
        _receivers.append(receiver)


def unregister(receiver: Receiver) -> None:
    """Stop handing facts to `receiver`."""
    _receivers.remove(receiver)


def emit(fact: str, **fields: Any) -> None:
    """State a fact. A receiver that fails is logged and never harms the work that stated it."""
    for receiver in _receivers:
        try:
            receiver(fact, fields)
        except Exception:
            _logger.exception("A telemetry receiver failed on %s", fact)
