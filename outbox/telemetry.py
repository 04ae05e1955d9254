"""
Signals report what has happened, in the past tense: `emit("message.buried", consumer=…)`.

No vendor is used here. The project registers receivers that log, count and trace.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeAlias

Receiver: TypeAlias = Callable[[str, dict[str, Any]], None]

_receivers: list[Receiver] = []
_logger = logging.getLogger(__name__)


def register(receiver: Receiver) -> None:
    """Call `receiver` with every signal. Registering it again has no effect."""
    if receiver not in _receivers:
        _receivers.append(receiver)


def unregister(receiver: Receiver) -> None:
    """Stop calling `receiver`."""
    _receivers.remove(receiver)


def emit(signal: str, **fields: Any) -> None:
    """Emit a signal. The failure of a receiver is logged and does not affect the caller."""
    for receiver in tuple(_receivers):  # other threads may register or unregister some
        try:
            receiver(signal, fields)
        except Exception:
            _logger.exception("A telemetry receiver failed on %s", signal)
