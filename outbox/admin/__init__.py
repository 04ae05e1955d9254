"""
The outbox's pages in the admin. Django looks for them here; importing the files registers them.

Rows are read-only; dead letters can be replayed and discarded. No logic is here: pages call what commands call.
"""

from outbox.admin import campaigns, dead_letters, messages, tasks, verifications

__all__ = ["campaigns", "dead_letters", "messages", "tasks", "verifications"]
