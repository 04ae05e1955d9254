"""The operator windows on the machinery: Django looks for them here; importing their files registers them."""

from outbox import admin_dead_letters, admin_messages, admin_verifications

__all__ = ["admin_dead_letters", "admin_messages", "admin_verifications"]
