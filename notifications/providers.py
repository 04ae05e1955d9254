"""
Compares our notifications with the providers' own records.

Twilio has a list. SMTP and FCM have none and cannot be compared, except with the sandbox, whose mailbox lists
what arrived.
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
from outbox.database import storable
from outbox.http import answers, bounded
from outbox.verification.catalogue import NotComparable, Row, Snapshot

HERE = ("127.0.0.1", "localhost", "::1")


def missing(channel: Channel, sent: list[Row], snapshot: Snapshot) -> Iterable[str]:
    """
    Return the orders of those notifications in `sent` that are missing in the provider's list.

    Raises:
        NotComparable: if the provider of the channel has no list.
    """
    if channel is not Channel.SMS and not _is_sandbox(channel):
        raise NotComparable("the provider keeps no list")
    if not sent:
        return []
    known = set(snapshot.once(("notifications", channel), lambda: _taken(channel, snapshot.since)))
    return sorted({row["order_number"] for row in sent if row["provider_message_id"] not in known})


def _taken(channel: Channel, since: dt.datetime | None) -> Iterator[str]:
    """The provider's ids of the notifications it has accepted since then."""
    if channel is Channel.SMS:
        adapter = channels.get(Channel.SMS)
        assert isinstance(adapter, SmsChannel)
        return adapter.sent(since=since)
    return _received(channel)


def _is_sandbox(channel: Channel) -> bool:
    """Whether the channel is connected to the sandbox on this machine."""
    real_push = settings.FCM_API_BASE.startswith(GOOGLE)
    own = settings.EMAIL_HOST in HERE if channel is Channel.EMAIL else not real_push
    return bool(settings.SANDBOX_URL) and own


def _received(channel: Channel) -> Iterator[str]:
    session = bounded.bound(requests.Session(), seconds=settings.PROVIDER_TIMEOUT.total_seconds())
    session.trust_env = False
    session.auth = ("sandbox", settings.SANDBOX_PASSWORD)
    address, timeout = f"{settings.SANDBOX_URL}/api/received", settings.PROVIDER_TIMEOUT.total_seconds()
    after, pages = "0", answers.Pages("the mailbox's")
    while after:
        try:
            answer = session.get(address, params={"kind": str(channel), "after": after}, timeout=timeout)
            answer.raise_for_status()
        except requests.RequestException as failure:
            raise NotComparable("the sandbox's mailbox does not answer") from failure
        with answers.reading("the mailbox's", NotComparable):
            page = answer.json()
            ids = [storable.identifier(one) for one in answers.items(page["ids"])]
            further = page["next_after"]
        yield from ids
        after = pages.continue_after(further) if further else ""
