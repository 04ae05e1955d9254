"""
Charges that the provider has and has not decided on: which are waited for, and which are called off.

A charge is called off at the provider, and that is confirmed, before anybody hears that it was not made.
"""

from __future__ import annotations

import dataclasses
import datetime as dt

from orders import ports
from orders.models import Order, Payment
from orders.transitions import LEASE, extend
from outbox import crash_points

SHORTEST_WAIT, LONGEST_WAIT = dt.timedelta(seconds=5), dt.timedelta(minutes=15)
"""How long to wait before looking again at a charge that the provider has not decided on. A card takes
seconds; what takes longer may take days."""


def decide(gateway: ports.PaymentGateway, order: Order, payment: Payment, found: ports.Charge) -> ports.Charge:
    """
    What has certainly become of a charge. One that needs its customer is cancelled first, and then refused.

    Raises:
        ChargeUndecided: while it may still be captured; `ChargeHeld` where that takes a person.
        orders.transitions.Fenced: if somebody else has taken the order, who may want the charge.
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
    Cancel a charge that was not captured, and return it once that is confirmed, with what it waited for.

    Raises:
        ChargeUndecided: if it may still be captured all the same.
        orders.transitions.Fenced: if somebody else has taken the order.
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
    """That the charge has to be waited for: seconds at first, and a quarter of an hour at most."""
    assert order.lease_until is not None
    claimed_at = order.lease_until - LEASE
    age = claimed_at - (payment.first_asked_at or claimed_at)
    wait = min(max(age / 4, SHORTEST_WAIT), LONGEST_WAIT)
    kind = ports.ChargeHeld if found.state is ports.ChargeState.HELD else ports.ChargeUndecided
    return kind(f"{found.id}: {found.message or found.state}", retry_after=wait)
