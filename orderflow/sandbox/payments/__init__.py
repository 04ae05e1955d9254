"""Payments compatible with Stripe's API v1, closely enough for Stripe's own SDK."""

from __future__ import annotations

import argparse

from orderflow.sandbox.control import Control

from .provider import Payments


def create(arguments: argparse.Namespace, control: Control) -> Payments:
    return Payments(control.ledger, key_lifetime=arguments.key_hours * 3600, search_lag=arguments.search_lag)
