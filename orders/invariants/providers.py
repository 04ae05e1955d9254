"""The providers' own records of charges, refunds and shipments; `orders.reconciliation` compares."""

from __future__ import annotations

from orders import reconciliation, repairs
from outbox.promises import Compare, Invariant, Repair

PROVIDER = "look up {id} at the provider, and compare with manage.py order_trace"


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
        values=reconciliation.values,
        compare=compare,
        asks_providers=True,
        command=command,
        repair=repair,
    )


INVARIANTS = [
    _compared(
        "our-charges-are-at-the-provider",
        "Every captured charge in our books is in the provider's list, of the same amount.",
        reconciliation.CHARGES,
        reconciliation.charges_missing_there,
    ),
    _compared(
        "the-provider-charged-once",
        "The provider holds at most one captured, unrefunded charge of an order.",
        reconciliation.CHARGES,
        reconciliation.charges_made_twice,
    ),
    _compared(
        "their-charges-are-in-our-books",
        "Every captured charge that the provider holds under a key of ours is in our books.",
        reconciliation.CHARGES,
        reconciliation.charges_missing_here,
    ),
    _compared(
        "no-charge-is-stranded",
        "The provider holds no charge that our books do not have of an order that was rejected or cancelled.",
        reconciliation.CHARGES,
        reconciliation.charges_stranded,
        "python manage.py verify --providers --repair",
        repairs.ADOPT_STRANDED,
    ),
    _compared(
        "our-refunds-are-at-the-provider",
        "Every refund in our books is in the provider's list, of the same amount.",
        reconciliation.REFUNDS,
        reconciliation.refunds_missing_there,
    ),
    _compared(
        "their-refunds-are-in-our-books",
        "Every refund that the provider made under a key of ours is in our books.",
        reconciliation.REFUNDS,
        reconciliation.refunds_missing_here,
    ),
    _compared(
        "our-shipments-are-at-the-warehouse",
        "Every shipment in our books is in the warehouse's list.",
        reconciliation.SHIPMENTS,
        reconciliation.shipments_missing_there,
    ),
    _compared(
        "their-shipments-are-in-our-books",
        "Every shipment that left the warehouse under a key of ours is in our books, once.",
        reconciliation.SHIPMENTS,
        reconciliation.shipments_missing_here,
    ),
]
