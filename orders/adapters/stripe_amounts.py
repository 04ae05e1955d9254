"""
What Stripe charges: its currencies, its units and its smallest amounts, where they differ from ISO 4217.

Source: docs.stripe.com/currencies, "Supported presentment currencies", "Zero-decimal currencies", "Special
cases" and "Minimum and maximum charge amounts", as of 2026; "Three-decimal currencies" as of 2023
(web.archive.org/web/20221231002856/https://stripe.com/docs/currencies), a section that the page has lost since
without saying what holds instead. A currency that is not listed here is refused: charging it would mean
guessing its unit. Largest amounts depend on the account and the card; Stripe's answer decides on them.
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
"""Stripe's decimals where they are not those of ISO 4217. ISK and UGX have two for the sake of old clients,
which must be zeros (Stripe lists UGX among those without decimals as well; its special case counts). An ariary
is not divided. HUF and TWD are special in payouts only."""

STEPS = dict.fromkeys(("BHD", "JOD", "KWD", "OMR", "TND"), 10)
"""What amounts must be multiples of, in Stripe's units: the last of three decimals must be a zero."""

SMALLEST = {
    "AED": 200, "ARS": 50, "AUD": 50, "BRL": 50, "CAD": 50, "CHF": 50, "COP": 50, "CZK": 1500, "DKK": 250,
    "EUR": 50, "GBP": 30, "HKD": 400, "HUF": 17500, "IDR": 50, "ILS": 50, "INR": 50, "JPY": 50, "KRW": 50,
    "MXN": 1000, "MYR": 200, "NOK": 300, "NZD": 50, "PHP": 50, "PLN": 200, "RON": 200, "RUB": 50, "SEK": 300,
    "SGD": 50, "THB": 1000, "USD": 50, "ZAR": 50,
}  # fmt: skip
"""The smallest amounts that are charged, in minor units, to an account that is paid out in the same currency.
In other cases it is what the account's own currency makes of its smallest amount, at the rate of that moment:
Stripe's answer decides, which rejects the order as well."""


def refusal_of(amount_minor: int, currency: str) -> str:
    """Why this amount is not charged, as customers may read it; empty if Stripe may be asked."""
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
    An amount in Stripe's units.

    Raises:
        ValueError: if it has none in them, or the currency is not known; see `refusal_of`.
    """
    if currency not in CURRENCIES or amount_minor % _step(currency):
        raise ValueError(f"{written(amount_minor, currency)} has no amount at Stripe")
    shift = _shift(currency)
    return amount_minor * 10**shift if shift >= 0 else amount_minor // 10**-shift


def from_stripe(amount: int, currency: str) -> int:
    """An amount of Stripe's in minor units; of currencies that we do not charge, its own number."""
    shift = _shift(currency.upper())
    return amount // 10**shift if shift >= 0 else amount * 10**-shift


def _shift(currency: str) -> int:
    """How many more decimals an amount has at Stripe."""
    ours = decimals_of(currency)
    return DECIMALS.get(currency, ours) - ours


def _step(currency: str) -> int:
    """What amounts in minor units must be multiples of."""
    return STEPS.get(currency, int(10 ** max(0, -_shift(currency))))
