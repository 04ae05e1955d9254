"""
The history of an order, as its page shows it.

It covers all apps, so it is implemented above this app and registered here with the project's pages. Without
it, the page shows only the order itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from orders.models import Order


@dataclasses.dataclass(frozen=True, kw_only=True)
class Story:
    """
    Provides the history of an order over all apps.

    `entries` lists what happened, oldest first; `outlook` is a sentence about what comes next; `way_out` is the
    command that helps an order which is blocked, empty if it needs none.
    """

    entries: Callable[[Order], Sequence[Any]] = lambda order: ()
    outlook: Callable[[Order], str] = lambda order: ""
    way_out: Callable[[Order], str] = lambda order: ""


_story = [Story()]


def register(story: Story) -> None:
    """Use this history on every order's page. Called by `orderflow.admin`."""
    _story[0] = story


def current() -> Story:
    return _story[0]
