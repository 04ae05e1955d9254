"""
The budget of one order, in counts that do not depend on the machine.

They are what the code needs today; a change that needs more fails `run.py bench --quick`. Lower them when the
code needs less.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counts:
    """The counts of one order, from placing to its e-mail."""

    queries: float
    """SQL statements, including savepoints, but not BEGIN and COMMIT."""
    transactions: float
    messages: float
    """Messages that went through the broker."""
    lines: float
    """Log lines, at the level INFO."""


PLACING = Counts(queries=2, transactions=1, messages=0, lines=1)
DELIVERIES = 2
"""The broker messages of one order: to its steps, and to its e-mail."""

WHOLE_ORDER = Counts(queries=12.45, transactions=9.45, messages=DELIVERIES, lines=9)
"""
Including the relay's statements per batch, shared by 20 orders.

Tracking deliveries costs no statement: one is recorded with its batch, and ends with its last task's effect.
"""
