"""The adapters that the settings name: one instance of each per process."""

from __future__ import annotations

import functools

from django.conf import settings
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from orders import ports

STRIPE = "https://api.stripe.com"
"""The real address. It is here because many ask for it, and the adapter loads the provider's library."""


@functools.cache
def payment_gateway() -> ports.PaymentGateway:
    """The adapter named by `PAYMENT_GATEWAY`."""
    gateway: ports.PaymentGateway = import_string(settings.PAYMENT_GATEWAY)()
    return gateway


@functools.cache
def warehouse() -> ports.Warehouse:
    """The adapter named by `WAREHOUSE`."""
    made: ports.Warehouse = import_string(settings.WAREHOUSE)()
    return made


def forget(**_: object) -> None:
    """Create the adapters again at their next use, because settings have changed."""
    payment_gateway.cache_clear()
    warehouse.cache_clear()


setting_changed.connect(forget)
