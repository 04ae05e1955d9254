"""
What notifications needs from the outside, and how the outside may fail.

A `Transient` call reached nobody and may be repeated; after `OutcomeUnknown` nobody knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from notifications.models import Notification
from outbox.resilience import Permanent, Transient


class RecipientRefused(Permanent):
    """The provider will never deliver to this recipient."""


class RequestRefused(Permanent):
    """The provider refuses the request itself: wrong credentials, a forbidden sender, a malformed text."""


class RecipientDeferred(Transient):
    """The provider does not deliver to this recipient now; others are not concerned."""


class OutcomeUnknown(Transient):
    """The provider may or may not have taken the notification."""


class Channel(Protocol):
    """One way to reach customers."""

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

    def find(self, notification: Notification) -> Sequence[str]:
        """The provider's ids of what an earlier try may have sent; none where it cannot be asked."""
        ...
