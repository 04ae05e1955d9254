"""
What notifications needs from the outside, and how the outside may fail.

A `Transient` call reached nobody and may be repeated; after `OutcomeUnknown` nobody knows.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Protocol

from notifications.models import Notification
from outbox.resilience import Permanent, Transient


class RecipientRefused(Permanent):
    """The provider will never deliver to this recipient."""


class RequestRefused(Permanent):
    """The provider refuses the request itself: a forbidden sender, a malformed text."""


class RecipientDeferred(Transient):
    """The provider does not deliver to this recipient now; others are not concerned."""


class OutcomeUnknown(Transient):
    """The provider may or may not have taken the notification."""


class ChannelAdapter(Protocol):
    """One way to reach customers."""

    can_look_up: bool
    """Whether the provider says what it has taken, so that `find` finds it."""

    def send(self, notification: Notification) -> str:
        """
        Hand the notification to the provider and return the provider's id for it.

        Raises:
            RecipientRefused: never try this recipient again.
            RequestRefused: trying again cannot help.
            OutcomeUnknown: the answer was lost.
            outbox.resilience.Transient: nothing was sent; the same call may be repeated.
        """
        ...

    def find(self, notification: Notification, *, since: dt.datetime) -> Sequence[str]:
        """The provider's ids of what may have been sent since then; none where it cannot be asked."""
        ...
