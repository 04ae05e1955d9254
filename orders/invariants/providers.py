"""
Invariants about the providers' records of charges, refunds and shipments; see
`orders.reconciliation.comparison`.
"""

from __future__ import annotations

from orders.invariants import repairs
from orders.reconciliation import comparison
from outbox.verification.catalogue import Compare, Invariant, Repair

PROVIDER = "look up {id} at the provider, and compare with python manage.py order_trace"

ENTER = "python manage.py verify --providers --repair"


def _compared(
    name: str,
    sentence: str,
    sql: str,
    compare: Compare,
    command: str = PROVIDER,
    repair: Repair | None = None,
) -> Invariant:
    return Invariant(
        name=name,
        sentence=sentence,
        sql=sql,
        values=comparison.values,
        compare=compare,
        needs_providers=True,
        command=command,
        repair=repair,
    )


INVARIANTS = [
    _compared(
        "our-charges-are-at-the-provider",
        "Every captured charge in our books is in the provider's list, of the same amount.",
        comparison.CHARGES,
        comparison.charges_missing_there,
    ),
    _compared(
        "the-provider-charged-once",
        "The provider holds at most one captured, unrefunded charge of an order.",
        comparison.CHARGES,
        comparison.charges_made_twice,
    ),
    _compared(
        "their-charges-are-in-our-books",
        "Every captured charge that the provider holds under a key of ours is in our books.",
        comparison.CHARGES,
        comparison.charges_missing_here,
        ENTER,
        repairs.ENTER_AGAIN,
    ),
    _compared(
        "no-charge-is-stranded",
        "The provider holds no charge that our books do not have of an order that was rejected or cancelled.",
        comparison.CHARGES,
        comparison.charges_stranded,
        "python manage.py verify --providers --repair",
        repairs.ADOPT_STRANDED,
    ),
    _compared(
        "our-refunds-are-at-the-provider",
        "Every refund in our books is in the provider's list, of the same amount.",
        comparison.REFUNDS,
        comparison.refunds_missing_there,
    ),
    _compared(
        "their-refunds-are-in-our-books",
        "Every refund that the provider made under a key of ours is in our books.",
        comparison.REFUNDS,
        comparison.refunds_missing_here,
        ENTER,
        repairs.ENTER_AGAIN,
    ),
    _compared(
        "our-shipments-are-at-the-warehouse",
        "Every shipment in our books is in the warehouse's list.",
        comparison.SHIPMENTS,
        comparison.shipments_missing_there,
    ),
    _compared(
        "their-shipments-are-in-our-books",
        "Every shipment that left the warehouse under a key of ours is in our books, once.",
        comparison.SHIPMENTS,
        comparison.shipments_missing_here,
        ENTER,
        repairs.ENTER_AGAIN,
    ),
]
