"""The notifications app: hands its workflows over to the outbox."""

from django.apps import AppConfig


class NotificationsConfig(AppConfig):
    name = "notifications"
    verbose_name = "Notifications"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from notifications import workflows
        from notifications.models import Notification
        from outbox import registry

        registry.subscribe(workflows.SUBSCRIPTIONS)
        registry.hold(lambda: Notification.objects.unfinished().values("message_id"))
