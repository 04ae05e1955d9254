"""
The interface of channel adapters, and their errors.

After a `Transient` error nothing was sent, so the call may be repeated. After `OutcomeUnknown` it may have been
sent.
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
    """The provider refuses the request, for example because of a forbidden sender or a malformed text."""


class RecipientDeferred(Transient):
    """The provider does not deliver to this recipient now. Other recipients are not affected."""


class OutcomeUnknown(Transient):
    """The provider may or may not have accepted the notification."""


class ChannelAdapter(Protocol):
    """The adapter of one channel."""

    can_look_up: bool
    """Whether the provider lists accepted notifications, so that `find` can look them up."""

    def send(self, notification: Notification) -> str:
        """
        Send the notification to the provider and return the provider's id for it.

        Raises:
            RecipientRefused: if this recipient must never be tried again.
            RequestRefused: if trying again cannot help.
            OutcomeUnknown: if the response was lost.
            outbox.resilience.Transient: if nothing was sent; the same call may be repeated.
        """
        ...

    def find(self, notification: Notification, *, since: dt.datetime) -> Sequence[str]:
        """Return the provider's ids of matching notifications since then; empty if it has no look-up."""
        ...
