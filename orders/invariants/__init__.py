"""
What orders promises: of their own tables, of the messages that move them, and of the providers' records.

A step writes an order's status, its history, its effects and its messages in one transaction, so most
of these hold in every snapshot without a grace. Those that speak of work still to come allow for
what the sweep waits for and for what the length of the queue explains (`patience`).
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
