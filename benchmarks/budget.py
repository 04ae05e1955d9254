"""
What one order may cost, in counts that no machine changes.

They are what the code needs today; a change that needs more fails `run.py bench --quick`. Lower them when
the code needs less.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counts:
    """Of one order, from placing to its e-mail."""

    queries: float
    """SQL statements, savepoints included, BEGIN and COMMIT not."""
    transactions: float
    messages: float
    """That went through the broker."""


PLACING = Counts(queries=2, transactions=1, messages=0)
DELIVERIES = 2
"""Of one order: to its steps, and to its e-mail."""

WHOLE_ORDER = Counts(queries=14.45 + DELIVERIES, transactions=9.45 + DELIVERIES, messages=2)
"""
With what the relay needs per batch shared by 20 orders.

To follow a delivery costs one statement with a transaction of its own, and may not cost more.
"""
