"""
The minor units of currencies, as ISO 4217 defines them. Every amount is parsed and formatted here.

It is part of the contracts: the amounts of events are in minor units, which this table defines.

A payment provider's units may differ; its adapter converts them.
"""

from __future__ import annotations

NO_DECIMALS = frozenset(
    "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF".split()  # noqa: SIM905
)
THREE_DECIMALS = frozenset("BHD IQD JOD KWD LYD OMR TND".split())  # noqa: SIM905
FOUR_DECIMALS = frozenset({"CLF", "UYW"})
"""All codes of ISO 4217's list one, maintained by SIX Group, whose exponent is not 2. MGA and MRU have 2 there,
although their minor units are fifths."""


def decimals_of(currency: str) -> int:
    """Return the number of decimals of an amount in this currency."""
    currency = currency.upper()
    if currency in NO_DECIMALS:
        return 0
    if currency in THREE_DECIMALS:
        return 3
    return 4 if currency in FOUR_DECIMALS else 2


def digits(minor: int, currency: str) -> str:
    """Format an amount of minor units without its currency: `1,234.50`, `500`, `-12.500`."""
    decimals = decimals_of(currency)
    whole, rest = divmod(abs(minor), 10**decimals)
    return ("-" if minor < 0 else "") + f"{whole:,}" + (f".{rest:0{decimals}d}" if decimals else "")


def written(minor: int, currency: str) -> str:
    """Format an amount of minor units with its currency: `1,234.50 GBP`."""
    return f"{digits(minor, currency)} {currency.upper()}"
