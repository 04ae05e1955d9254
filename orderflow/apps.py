"""The project's own app: wires what the other three leave open."""

from django.apps import AppConfig


class OrderFlowConfig(AppConfig):
    name = "orderflow"
    verbose_name = "OrderFlow"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from orderflow import checks, groups, observability

        checks.connect()
        groups.connect()
        observability.connect()
