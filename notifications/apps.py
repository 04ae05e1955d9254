"""The notifications app: registers its workflows and invariants with the outbox."""

from typing import TYPE_CHECKING

from django.apps import AppConfig

if TYPE_CHECKING:
    from outbox.statistics.catalogue import Series
    from outbox.verification.catalogue import Invariant


class NotificationsConfig(AppConfig):
    name = "notifications"
    verbose_name = "Notifications"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from notifications import outcomes, retention, workflows
        from notifications.models import Notification
        from outbox import registry
        from outbox.dead_letters import owners
        from outbox.statistics import catalogue as statistics
        from outbox.verification import catalogue

        registry.subscribe(workflows.SUBSCRIPTIONS)
        registry.hold(lambda: Notification.objects.unfinished().values("message_id"))
        registry.expire("notifications", retention.spent)
        catalogue.register_later(self._invariants)
        statistics.register_later(self._series)
        owners.register(outcomes.Notifications())

    @staticmethod
    def _invariants() -> "list[Invariant]":
        from notifications import invariants

        return invariants.INVARIANTS

    @staticmethod
    def _series() -> "list[Series]":
        from notifications import statistics

        return statistics.SERIES
