"""The providers, by the names of their breakers, and the consumers that call each and wait while it is down."""

from __future__ import annotations

CONSUMERS = {
    "payments": [f"orders.tasks.{step}" for step in ("charge", "cancel", "refund", "refund_stranded")],
    "warehouse": ["orders.tasks.fulfill", "orders.tasks.cancel"],
    "email": ["notifications.tasks.send_email"],
    "sms": ["notifications.tasks.send_sms"],
    "push": ["notifications.tasks.send_push"],
}

PROVIDERS = tuple(CONSUMERS)
