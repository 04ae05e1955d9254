"""The project's own app: connects what the other three apps leave open."""

from django.apps import AppConfig


class OrderFlowConfig(AppConfig):
    name = "orderflow"
    verbose_name = "OrderFlow"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # Importing the Celery app makes it the current one, in the web server and in commands too. The
        # package itself imports nothing: the sandbox and the stack must start without Celery.
        from orderflow import (
            celery,  # noqa: F401
            checks,
        )
        from orderflow.login import groups
        from orderflow.login import signals as login_signals
        from orderflow.observability import logs
        from orderflow.ops import sections
        from orderflow.shared_state import witness

        checks.connect()
        groups.connect()
        login_signals.connect()
        logs.connect()
        sections.connect()
        witness.connect()
