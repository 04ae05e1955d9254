"""For tests: which of this app's times `outbox.testing` lets pass."""

from notifications.models import Notification
from outbox import testing

testing.register(waits={Notification: ("lease_until",)})
