"""
The outbox's admin pages. Django imports this package, which registers them.

Rows are read-only; dead letters can be replayed and discarded. The pages call the same functions as the
commands.
"""

from outbox.admin import campaigns, dead_letters, messages, tasks, verifications

__all__ = ["campaigns", "dead_letters", "messages", "tasks", "verifications"]
