"""
The statuses of an order, and which status may follow which.

This table is the only one in code. A database trigger enforces the same moves (see the newest migration
named `…_legal_moves`), and a test compares the two.
"""

from __future__ import annotations

from django.db import models


class Status(models.TextChoices):
    """The status of an order."""

    PLACED = "placed", "placed"
    VALIDATED = "validated", "validated"
    CHARGE_UNKNOWN = "charge_unknown", "charge unknown"
    CHARGED = "charged", "charged"
    FULFILLED = "fulfilled", "fulfilled"
    REJECTED = "rejected", "rejected"
    CANCELLING = "cancelling", "cancelling"
    CANCELLED = "cancelled", "cancelled"


MOVES: dict[Status, frozenset[Status]] = {
    Status.PLACED: frozenset({Status.VALIDATED, Status.REJECTED, Status.CANCELLED}),
    Status.VALIDATED: frozenset({Status.CHARGED, Status.CHARGE_UNKNOWN, Status.REJECTED, Status.CANCELLED}),
    Status.CHARGE_UNKNOWN: frozenset({Status.CHARGED, Status.REJECTED, Status.CANCELLED}),
    Status.CHARGED: frozenset({Status.FULFILLED, Status.CANCELLING}),
    Status.CANCELLING: frozenset({Status.CANCELLED}),
    Status.FULFILLED: frozenset(),
    Status.REJECTED: frozenset(),
    Status.CANCELLED: frozenset(),
}

FINAL = frozenset(status for status, following in MOVES.items() if not following)
CHARGEABLE = frozenset({Status.VALIDATED, Status.CHARGE_UNKNOWN})
"""The statuses from which the charge step takes an order."""

UNCHARGED = frozenset({Status.PLACED} | {status for status, after in MOVES.items() if Status.CHARGED in after})
"""The statuses before the charge."""

HOLDING_STOCK = frozenset(MOVES) - FINAL - {Status.PLACED}
"""The statuses from the reservation of stock to its shipment or release."""

CANCELLABLE = frozenset(
    status for status, after in MOVES.items() if after & {Status.CANCELLED, Status.CANCELLING}
) - {Status.CANCELLING}
"""The statuses in which a cancellation may still be requested."""


class IllegalMove(Exception):
    """A status cannot follow the current one. This is a mistake in the calling code."""


def check(*, before: Status, after: Status) -> None:
    """
    Raises:
        IllegalMove: if `after` cannot follow `before`.
    """
    if after not in MOVES[before]:
        raise IllegalMove(f"{before} → {after}")
