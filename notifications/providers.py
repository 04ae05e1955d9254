"""
What the providers themselves say was sent, compared with what we wrote down.

Twilio has a list. SMTP and FCM have none and cannot be compared, except in front of the sandbox, whose
mailbox tells what arrived.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator

import requests
from django.conf import settings

from notifications import channels
from notifications.channels.push import GOOGLE
from notifications.channels.sms import SmsChannel
from notifications.models import Channel
from outbox.promises import Look, NotComparable, Row

HERE = ("127.0.0.1", "localhost", "::1")


def missing(channel: Channel, sent: list[Row], look: Look) -> Iterable[str]:
    """
    The orders of those notifications in `sent` that the provider of their channel knows nothing of.

    Raises:
        NotComparable: if that provider keeps no list of what it took.
    """
    if channel is not Channel.SMS and not _is_sandbox(channel):
        raise NotComparable("the provider keeps no list")
    if not sent:
        return []
    known = set(look.once(("notifications", channel), lambda: _taken(channel, look.since)))
    return sorted({row["order_number"] for row in sent if row["provider_message_id"] not in known})


def _taken(channel: Channel, since: dt.datetime | None) -> Iterator[str]:
    """The provider's ids of what it took since then."""
    if channel is Channel.SMS:
        adapter = channels.get(Channel.SMS)
        assert isinstance(adapter, SmsChannel)
        return adapter.sent(since=since)
    return _received(channel)


def _is_sandbox(channel: Channel) -> bool:
    """Whether the channel ends in the sandbox of this machine."""
    real_push = settings.FCM_API_BASE.startswith(GOOGLE)
    own = settings.EMAIL_HOST in HERE if channel is Channel.EMAIL else not real_push
    return bool(settings.SANDBOX_URL) and own


def _received(channel: Channel) -> Iterator[str]:
    session = requests.Session()
    session.trust_env = False
    address, timeout = f"{settings.SANDBOX_URL}/api/received", settings.PROVIDER_TIMEOUT.total_seconds()
    after = "0"
    while after:
        try:
            answer = session.get(address, params={"kind": str(channel), "after": after}, timeout=timeout)
            answer.raise_for_status()
        except requests.RequestException as failure:
            raise NotComparable("the sandbox's mailbox does not answer") from failure
        page = answer.json()
        yield from page["ids"]
        after = str(page["next_after"] or "")
