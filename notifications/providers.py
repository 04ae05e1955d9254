"""What the providers themselves say was sent, compared with what we wrote down."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator

from notifications import channels
from notifications.channels.sms import SmsChannel
from notifications.models import Channel
from outbox.verification import Look, NotComparable, Row


def missing(channel: Channel, sent: list[Row], look: Look) -> Iterable[str]:
    """
    The notifications in `sent` that the provider of their channel knows nothing of.

    Raises:
        NotComparable: if that provider keeps no list of what it took.
    """
    if channel not in LISTS:
        raise NotComparable("the provider keeps no list")
    if not sent:
        return []
    known = set(look.once(("notifications", channel), lambda: LISTS[channel](look.since)))
    return [str(row["id"]) for row in sent if row["provider_message_id"] not in known]


def _sms(since: dt.datetime | None) -> Iterator[str]:
    adapter = channels.get(Channel.SMS)
    assert isinstance(adapter, SmsChannel)
    return adapter.sent(since=since)


LISTS: dict[Channel, Callable[[dt.datetime | None], Iterator[str]]] = {Channel.SMS: _sms}
"""SMTP and FCM cannot be asked what they have taken."""
