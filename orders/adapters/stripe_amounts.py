"""
Stripe's currencies, units and smallest amounts, where they differ from ISO 4217.

Source: docs.stripe.com/currencies, "Supported presentment currencies", "Zero-decimal currencies", "Special
cases" and "Minimum and maximum charge amounts", as of 2026; "Three-decimal currencies" as of 2023
(web.archive.org/web/20221231002856/https://stripe.com/docs/currencies), a section that was removed from the
page without a replacement. A currency that is not listed here is refused: charging it would mean guessing its
unit. Largest amounts depend on the account and the card, so Stripe's response decides on them.
"""

from __future__ import annotations

from orders.contracts.currencies import decimals_of, written

CURRENCIES = frozenset(
    """
    AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BHD BIF BMD BND BOB BRL BSD BWP BYN BZD CAD CDF CHF
    CLP CNY COP CRC CVE CZK DJF DKK DOP DZD EGP ETB EUR FJD FKP GBP GEL GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR
    ILS INR ISK JMD JOD JPY KES KGS KHR KMF KRW KWD KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MUR
    MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR
    SEK SGD SHP SLE SOS SRD STD SZL THB TJS TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VND VUV WST XAF XCD XCG
    XOF XPF YER ZAR ZMW
    """.split()  # noqa: SIM905
)

DECIMALS = {"ISK": 2, "UGX": 2, "MGA": 0}
"""Stripe's decimals where they differ from ISO 4217. ISK and UGX have two for backward compatibility, which
must be zeros (Stripe also lists UGX among the currencies without decimals; its special case applies). An ariary
is not divided. HUF and TWD are special in payouts only."""

STEPS = dict.fromkeys(("BHD", "JOD", "KWD", "OMR", "TND"), 10)
"""The steps of amounts, in Stripe's units: the last of three decimals must be zero."""

SMALLEST = {
    "AED": 200, "ARS": 50, "AUD": 50, "BRL": 50, "CAD": 50, "CHF": 50, "COP": 50, "CZK": 1500, "DKK": 250,
    "EUR": 50, "GBP": 30, "HKD": 400, "HUF": 17500, "IDR": 50, "ILS": 50, "INR": 50, "JPY": 50, "KRW": 50,
    "MXN": 1000, "MYR": 200, "NOK": 300, "NZD": 50, "PHP": 50, "PLN": 200, "RON": 200, "RUB": 50, "SEK": 300,
    "SGD": 50, "THB": 1000, "USD": 50, "ZAR": 50,
}  # fmt: skip
"""The smallest amounts that are charged, in minor units, for an account with payouts in the same currency. In
other cases the minimum of the account's currency applies, converted at the current rate: Stripe's response
decides, and also rejects the order."""


def refusal_of(amount_minor: int, currency: str) -> str:
    """Return why this amount cannot be charged, in words for customers; empty if Stripe may accept it."""
    if currency not in CURRENCIES:
        return f"payments in {currency} are not possible"
    if amount_minor <= 0:
        return "there is nothing to pay"
    if amount_minor < (smallest := SMALLEST.get(currency, 1)):
        return (
            f"{written(amount_minor, currency)} is less than the smallest amount that can be paid,"
            f" {written(smallest, currency)}"
        )
    if amount_minor % _step(currency):
        step = written(_step(currency), currency)
        return f"{written(amount_minor, currency)} cannot be paid: amounts must be multiples of {step}"
    return ""


def to_stripe(amount_minor: int, currency: str) -> int:
    """
    Return an amount in Stripe's units.

    Raises:
        ValueError: if it has no exact amount there, or the currency is unknown; see `refusal_of`.
    """
    if currency not in CURRENCIES or amount_minor % _step(currency):
        raise ValueError(f"{written(amount_minor, currency)} has no amount at Stripe")
    shift = _shift(currency)
    return amount_minor * 10**shift if shift >= 0 else amount_minor // 10**-shift


def from_stripe(amount: int, currency: str) -> int:
    """Return one of Stripe's amounts in minor units; unchanged for currencies that we do not charge."""
    shift = _shift(currency.upper())
    return amount // 10**shift if shift >= 0 else amount * 10**-shift


def _shift(currency: str) -> int:
    """The number of additional decimals of an amount at Stripe."""
    ours = decimals_of(currency)
    return DECIMALS.get(currency, ours) - ours


def _step(currency: str) -> int:
    """The step of amounts, in minor units."""
    return STEPS.get(currency, int(10 ** max(0, -_shift(currency))))
