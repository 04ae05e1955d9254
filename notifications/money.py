"""Amounts as customers read them."""

from __future__ import annotations

NO_DECIMALS = frozenset(
    "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF".split()  # noqa: SIM905
)
THREE_DECIMALS = frozenset("BHD IQD JOD KWD LYD OMR TND".split())  # noqa: SIM905
SYMBOLS = {"GBP": "£", "EUR": "€", "USD": "$", "JPY": "¥"}
"""Of currencies that readers of English texts recognise; all others are named by their code."""


def format_amount(minor: int, currency: str) -> str:
    """
    Write an amount of minor units, such as `£1,234.50`, `¥500` or `12.500 KWD`.

    The decimals are those of ISO 4217; a negative amount has its sign in front of the symbol.
    """
    currency = currency.upper()
    decimals = 0 if currency in NO_DECIMALS else 3 if currency in THREE_DECIMALS else 2
    whole, rest = divmod(abs(minor), 10**decimals)
    digits = f"{whole:,}" + (f".{rest:0{decimals}d}" if decimals else "")
    sign = "-" if minor < 0 else ""
    if currency in SYMBOLS:
        return f"{sign}{SYMBOLS[currency]}{digits}"
    return f"{sign}{digits} {currency}"
