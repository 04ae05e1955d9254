"""For tests: which of this app's times `outbox.testing` lets pass, and which it must not change."""

from orders.models import Order, OrderTransition
from outbox import testing

testing.register(waits={Order: ("due_at", "lease_until")}, fixed=[OrderTransition])
