"""Payments in the shape of Stripe's API v1, close enough that Stripe's own SDK cannot tell."""

from __future__ import annotations

import argparse

from orderflow.sandbox.faults import Faults
from orderflow.sandbox.ledger import Ledger

from .provider import Payments


def create(arguments: argparse.Namespace, ledger: Ledger, _faults: Faults) -> Payments:
    return Payments(ledger, key_lifetime=arguments.key_hours * 3600, search_lag=arguments.search_lag)
