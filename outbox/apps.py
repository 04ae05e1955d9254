"""The outbox app."""

from django.apps import AppConfig


class OutboxConfig(AppConfig):
    name = "outbox"
    verbose_name = "Outbox and dead letters"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from celery import current_app

        from outbox import invariants, promises

        current_app.steps["worker"].add("outbox.listener:Listening")
        promises.register(invariants.INVARIANTS)
