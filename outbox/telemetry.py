"""
Signals: what happens, in the past tense: `emit("message.buried", consumer=…)`.

Knows no vendor. `orderflow.observability.logs` registers receivers that log, count and trace.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeAlias

Receiver: TypeAlias = Callable[[str, dict[str, Any]], None]

_receivers: list[Receiver] = []
_logger = logging.getLogger(__name__)


def register(receiver: Receiver) -> None:
    """Hand every signal from now on to `receiver` too; registering it again changes nothing."""
    if receiver not in _receivers:
        _receivers.append(receiver)


def unregister(receiver: Receiver) -> None:
    """Stop handing signals to `receiver`."""
    _receivers.remove(receiver)


def emit(signal: str, **fields: Any) -> None:
    """Emit a signal. A receiver that fails is logged and does no harm to the work that emitted it."""
    for receiver in _receivers:
        try:
            receiver(signal, fields)
        except Exception:
            _logger.exception("A telemetry receiver failed on %s", signal)
