"""The orders app: registers its events, workflows, stock holds and invariants with the outbox."""

from typing import TYPE_CHECKING

from django.apps import AppConfig

if TYPE_CHECKING:
    from outbox.statistics.catalogue import Series
    from outbox.verification.catalogue import Invariant


class OrdersConfig(AppConfig):
    name = "orders"
    verbose_name = "Orders"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from orders import contracts, workflows
        from orders.dead_letters import discards, selection
        from orders.models import Order
        from orders.reconciliation import numbers
        from outbox import registry
        from outbox.dead_letters import owners
        from outbox.statistics import catalogue as statistics
        from outbox.verification import catalogue

        registry.register(contracts.EVENTS)
        registry.subscribe(workflows.SUBSCRIPTIONS)
        registry.hold(lambda: Order.objects.unfinished().values("message_id"))
        registry.on_restore(numbers.skip_forgotten)
        catalogue.register_later(self._invariants)
        statistics.register_later(self._series)
        owners.register(discards.Orders())
        selection.register()

    @staticmethod
    def _invariants() -> "list[Invariant]":
        from orders import invariants

        return invariants.INVARIANTS

    @staticmethod
    def _series() -> "list[Series]":
        from orders import statistics

        return statistics.SERIES
