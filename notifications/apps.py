"""The notifications app: hands its workflows and invariants over to the outbox."""

from django.apps import AppConfig


class NotificationsConfig(AppConfig):
    name = "notifications"
    verbose_name = "Notifications"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from notifications import invariants, workflows
        from notifications.models import Notification
        from outbox import promises, registry

        registry.subscribe(workflows.SUBSCRIPTIONS)
        registry.hold(lambda: Notification.objects.unfinished().values("message_id"))
        promises.register(invariants.INVARIANTS)
