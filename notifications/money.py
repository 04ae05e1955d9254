"""Amounts as customers read them. How many decimals a currency has is in `orders.contracts.currencies`."""

from __future__ import annotations

from orders.contracts.currencies import digits, written

SYMBOLS = {"GBP": "£", "EUR": "€", "USD": "$", "JPY": "¥"}
"""Of currencies that readers of English texts recognise; all others are named by their code."""


def format_amount(minor: int, currency: str) -> str:
    """
    Write an amount of minor units, such as `£1,234.50`, `¥500` or `12.500 KWD`.

    A negative amount has its sign in front of the symbol.
    """
    symbol = SYMBOLS.get(currency.upper())
    if symbol is None:
        return written(minor, currency)
    sign = "-" if minor < 0 else ""
    return f"{sign}{symbol}{digits(abs(minor), currency)}"
