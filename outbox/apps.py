"""The outbox app."""

from django.apps import AppConfig


class OutboxConfig(AppConfig):
    name = "outbox"
    verbose_name = "Outbox and dead letters"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from celery import current_app

        from outbox import checks as checks
        from outbox import registry
        from outbox import tasks as tasks  # every process needs to know the periodic tasks
        from outbox.django_tasks import workflows
        from outbox.verification import catalogue, outbox_invariants, restores

        current_app.steps["worker"].add("outbox.relay.listener:Listening")
        registry.subscribe(workflows.SUBSCRIPTIONS)
        catalogue.register(outbox_invariants.INVARIANTS)
        restores.connect()
