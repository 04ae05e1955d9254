"""
The story of an order, as its page shows it.

A story spans all apps, so it is written above this one and registered here when the project starts. Without
one, the page shows the order alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from orders.models import Order


@dataclasses.dataclass(frozen=True, kw_only=True)
class Story:
    """
    What is known of an order over all apps.

    `entries` lists what happened, oldest first; `outlook` says in a sentence what comes next; `way_out` is the
    command that helps an order which does not go on, empty when it needs none.
    """

    entries: Callable[[Order], Sequence[Any]] = lambda order: ()
    outlook: Callable[[Order], str] = lambda order: ""
    way_out: Callable[[Order], str] = lambda order: ""


_story = [Story()]


def register(story: Story) -> None:
    """Show this story on every order's page. Called by `apps.ready()`."""
    _story[0] = story


def current() -> Story:
    return _story[0]
