"""
Work that passes all crash points between its effects, as small stories.

Each has a part that goes well (`prepare`), a part in which the process may die (`work`), and what a
client or an operator does when it is over (`afterwards`).
"""

from __future__ import annotations

from tests.crash.stories import dead_letters, notifications, orders, outbox
from tests.crash.stories.story import EVERY_WAY, STORIES

__all__ = ["EVERY_WAY", "STORIES", "dead_letters", "notifications", "orders", "outbox"]
