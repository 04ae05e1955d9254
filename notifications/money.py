"""Formats amounts for customers. `orders.contracts.currencies` knows the decimals of each currency."""

from __future__ import annotations

from orders.contracts.currencies import digits, written

SYMBOLS = {"GBP": "£", "EUR": "€", "USD": "$", "JPY": "¥"}
"""The symbols that readers of English texts recognise; other currencies are written with their code."""


def format_amount(minor: int, currency: str) -> str:
    """
    Format an amount in minor units, for example as `£1,234.50`, `¥500` or `12.500 KWD`.

    A negative amount has its sign in front of the symbol.
    """
    symbol = SYMBOLS.get(currency.upper())
    if symbol is None:
        return written(minor, currency)
    sign = "-" if minor < 0 else ""
    return f"{sign}{symbol}{digits(abs(minor), currency)}"
