"""
Charges that the provider has not decided yet: which of them to wait for, and which to cancel.

A charge is cancelled at the provider, and that is confirmed, before anything reports that it was not made.
"""

from __future__ import annotations

import dataclasses
import datetime as dt

from orders import ports
from orders.models import Order, Payment
from orders.transitions import LEASE, extend
from outbox import crash_points

SHORTEST_WAIT, LONGEST_WAIT = dt.timedelta(seconds=5), dt.timedelta(minutes=15)
"""
How long to wait before checking an undecided charge again. Cards take seconds; anything longer may take days.
"""


def decide(gateway: ports.PaymentGateway, order: Order, payment: Payment, found: ports.Charge) -> ports.Charge:
    """
    Return the final state of a charge. One that needs its customer is cancelled first, and then refused.

    Raises:
        ChargeUndecided: while it may still be captured; `ChargeHeld` if that takes a person.
        orders.transitions.Fenced: if another worker has claimed the order, which may want the charge.
    """
    if found.state is ports.ChargeState.UNFINISHED:
        return call_off(gateway, order, payment, found)
    if not found.is_decided:
        raise waiting(order, payment, found)
    return found


def call_off(
    gateway: ports.PaymentGateway, order: Order, payment: Payment, found: ports.Charge
) -> ports.Charge:
    """
    Cancel an uncaptured charge, and return it once that is confirmed, with what it waited for.

    Raises:
        ChargeUndecided: if it may still be captured.
        orders.transitions.Fenced: if another worker has claimed the order.
    """
    crash_points.reached("charge.unfinished")
    extend(order)
    crash_points.reached("charge.calling_off")
    now = gateway.cancel(charge_id=found.id)
    if not now.is_decided:
        raise waiting(order, payment, now)
    if now.succeeded:
        return now
    return dataclasses.replace(now, message=found.message, decline_code=found.decline_code)


def waiting(order: Order, payment: Payment, found: ports.Charge) -> ports.ChargeUndecided:
    """Return the exception for a charge to wait for: seconds at first, at most a quarter of an hour."""
    assert order.lease_until is not None
    claimed_at = order.lease_until - LEASE
    age = claimed_at - (payment.first_asked_at or claimed_at)
    wait = min(max(age / 4, SHORTEST_WAIT), LONGEST_WAIT)
    kind = ports.ChargeHeld if found.state is ports.ChargeState.HELD else ports.ChargeUndecided
    return kind(f"{found.id}: {found.message or found.state}", retry_after=wait)
