"""The orders app: hands its events, workflows, holds and invariants over to the outbox."""

from django.apps import AppConfig


class OrdersConfig(AppConfig):
    name = "orders"
    verbose_name = "Orders"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from orders import contracts, invariants, workflows
        from orders.models import Order
        from outbox import promises, registry

        registry.register(contracts.EVENTS)
        registry.subscribe(workflows.SUBSCRIPTIONS)
        registry.hold(lambda: Order.objects.unfinished().values("message_id"))
        promises.register(invariants.INVARIANTS)
