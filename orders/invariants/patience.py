"""
Common parts of the invariants of orders: which orders count, when an order is late, and which command helps.
"""

from __future__ import annotations

from typing import Any

from orders.sweep import LONGEST_PAUSE, WORKFLOWS
from orders.transitions import LEASE, STEP_DEADLINE

TRACE = "python manage.py order_trace {id}"

READ = "docs/operations.md, “Reading a failed verdict”"
"""For invariants without a command that helps."""

RECENT = "(o.finished_at IS NULL OR o.finished_at >= %(since)s)"
"""Orders that may have changed since."""


OUTSTANDING = f"""
    EXISTS (
        SELECT FROM outbox_delivery AS delivery
        WHERE delivery.message_id = o.message_id AND starts_with(delivery.workflow, '{WORKFLOWS}')
    )
"""
"""Whether the workflow that moves an order is outstanding or waits. The outbox guarantees its progress."""


def patience() -> dict[str, Any]:
    """
    Return how late an order, or the refund of a stranded charge, may be before it is reported.

    The sweep's longest interval plus one step.
    """
    return {"patience": LONGEST_PAUSE + STEP_DEADLINE + LEASE}
