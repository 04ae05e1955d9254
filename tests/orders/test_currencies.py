"""One table of minor units, for everything that parses or shows an amount."""

from __future__ import annotations

import pytest

from notifications.money import SYMBOLS, format_amount
from orders.admin import orders
from orders.contracts import currencies

ISO_4217 = {
    **dict.fromkeys(("JPY", "KRW", "UGX", "XAF", "XOF", "UYI", "VUV"), "1,234,567"),
    **dict.fromkeys(("GBP", "EUR", "MGA", "MRU", "HUF", "TWD", "IDR"), "12,345.67"),
    **dict.fromkeys(("BHD", "IQD", "LYD", "OMR", "TND"), "1,234.567"),
    **dict.fromkeys(("CLF", "UYW"), "123.4567"),
}


@pytest.mark.parametrize(("currency", "text"), ISO_4217.items())
def test_amounts_have_the_decimals_of_iso_4217(currency, text):
    assert currencies.digits(1_234_567, currency) == text
    assert currencies.digits(1_234_567, currency.lower()) == text


@pytest.mark.parametrize(
    "currency", sorted(currencies.NO_DECIMALS | currencies.THREE_DECIMALS | currencies.FOUR_DECIMALS | {"GBP"})
)
@pytest.mark.parametrize("minor", [0, 7, -1_234_567, 10**15])
def test_staff_and_customers_read_the_same_amount(currency, minor):
    def number(text):
        return text.replace(currency, "").replace(SYMBOLS.get(currency, " "), "").strip()

    assert number(orders.amount(minor, currency)) == number(format_amount(minor, currency))
