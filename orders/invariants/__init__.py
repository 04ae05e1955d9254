"""
The invariants of orders: of their own tables, of the messages that move them, and of the providers' records.

A step writes an order's status, its history, its effects and its messages in one transaction, so most
invariants hold in every snapshot without a grace period. Those about future work allow for the intervals of the
sweep and for the length of the queue (`patience`).
"""

from __future__ import annotations

from orders.invariants import history, messages, money, providers, stock

INVARIANTS = [
    *messages.INVARIANTS,
    *history.INVARIANTS,
    *money.INVARIANTS,
    *stock.INVARIANTS,
    *providers.INVARIANTS,
]
