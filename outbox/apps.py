"""The outbox app."""

from typing import TYPE_CHECKING, Any

from celery import signals
from django.apps import AppConfig

if TYPE_CHECKING:
    from outbox.statistics.catalogue import Series


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
        from outbox.statistics import catalogue as statistics
        from outbox.verification import catalogue, outbox_invariants, restores

        signals.beat_init.connect(_begin_heartbeats)
        current_app.steps["worker"].add("outbox.relay.listener:Listening")
        current_app.steps["worker"].add("outbox.worker.heartbeats:Beating")
        registry.subscribe(workflows.SUBSCRIPTIONS)
        catalogue.register(outbox_invariants.INVARIANTS)
        statistics.register_later(self._series)
        restores.connect()

    @staticmethod
    def _series() -> "list[Series]":
        from outbox.statistics import outbox_series

        return outbox_series.SERIES


def _begin_heartbeats(**_: Any) -> None:
    """Of beat; those of a worker are begun by `Beating`."""
    from outbox.worker import heartbeats  # only by processes that write some

    heartbeats.begin_of_beat()
