"""The outside as settings name it: one instance of each adapter per process."""

from __future__ import annotations

import functools

from django.conf import settings
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from orders import ports


@functools.cache
def payment_gateway() -> ports.PaymentGateway:
    """The adapter that `PAYMENT_GATEWAY` names."""
    gateway: ports.PaymentGateway = import_string(settings.PAYMENT_GATEWAY)()
    return gateway


@functools.cache
def warehouse() -> ports.Warehouse:
    """The adapter that `WAREHOUSE` names."""
    made: ports.Warehouse = import_string(settings.WAREHOUSE)()
    return made


def forget(**_: object) -> None:
    """Build the adapters anew at their next use: settings have changed."""
    payment_gateway.cache_clear()
    warehouse.cache_clear()


setting_changed.connect(forget)
