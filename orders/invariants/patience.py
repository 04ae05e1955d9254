"""What the invariants of orders have in common: which orders count, how late is late, and what to type."""

from __future__ import annotations

from typing import Any

from orders.sweep import LONGEST_PAUSE, WORKFLOWS
from orders.transitions import LEASE, STEP_DEADLINE

TRACE = "python manage.py order_trace {id}"

READ = "docs/operations.md, “Reading a failed verdict”"
"""Where no command helps."""

RECENT = "(o.finished_at IS NULL OR o.finished_at >= %(since)s)"
"""Orders that may have changed since."""


OUTSTANDING = f"""
    EXISTS (
        SELECT FROM outbox_delivery AS delivery
        WHERE delivery.message_id = o.message_id AND starts_with(delivery.workflow, '{WORKFLOWS}')
    )
"""
"""Whether the workflow that moves an order on is outstanding or waits. The outbox promises that it gets on."""


def patience() -> dict[str, Any]:
    """
    How late an order, or the refund of a stranded charge, may be before somebody has to look.

    The sweep's longest pause and a step.
    """
    return {"patience": LONGEST_PAUSE + STEP_DEADLINE + LEASE}
