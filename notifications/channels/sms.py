"""Text messages through Twilio's official SDK."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import requests
from django.conf import settings
from twilio.base.exceptions import TwilioException, TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.rest import Client

from notifications.channels import http
from notifications.models import Notification
from notifications.ports import OutcomeUnknown, RecipientRefused, RequestRefused
from outbox.resilience import breaker

TWILIO = "https://api.twilio.com"

RECIPIENT_ERRORS = frozenset({21211, 21214, 21217, 21265, 21408, 21610, 21612, 21614, 21635})
"""Twilio's codes for numbers that are wrong, unreachable, forbidden or unsubscribed."""

LATEST = 50
"""How many of a recipient's latest messages a look-up reads: more than come while one try is open."""

PAGE = 1000
"""Messages in one page of a list; Twilio gives no more."""

CLOCKS_DIFFER = dt.timedelta(minutes=2)


class SmsChannel:
    """
    `notifications.ports.Channel` on Twilio.

    Twilio knows no idempotency keys, so what an earlier try may have sent is looked for by its text.
    """

    def __init__(self) -> None:
        timeout = settings.PROVIDER_TIMEOUT.total_seconds()
        self._client = Client(
            settings.TWILIO_ACCOUNT_SID or "unset",
            settings.TWILIO_AUTH_TOKEN or "unset",
            http_client=_HttpClient(base=settings.TWILIO_API_BASE.rstrip("/"), timeout=timeout),
        )

    def send(self, notification: Notification) -> str:
        """See `notifications.ports.Channel.send`."""
        with breaker("sms").guard():
            try:
                message = self._client.messages.create(
                    to=notification.recipient, from_=settings.TWILIO_FROM, body=notification.text
                )
            except TwilioRestException as refused:
                raise _refusal(refused) from refused
            except (TwilioException, ValueError, KeyError, TypeError) as unreadable:
                raise OutcomeUnknown("Twilio's answer cannot be read") from unreadable
        if not message.sid:
            raise OutcomeUnknown("Twilio's answer has no id")
        return str(message.sid)

    def find(self, notification: Notification) -> Sequence[str]:
        """The recipient's latest messages with this text, unless Twilio gave up on them."""
        latest = self._asked(
            lambda: self._client.messages.list(to=notification.recipient, limit=LATEST, page_size=LATEST)
        )
        since = notification.created_at - CLOCKS_DIFFER
        return [
            str(message.sid)
            for message in latest
            if message.body == notification.text
            and message.status not in ("failed", "canceled")
            and (message.date_created is None or message.date_created >= since)
        ]

    def sent(self, *, since: dt.datetime | None) -> Iterator[str]:
        """
        Twilio's ids of all messages sent on the day of `since` or later, or ever, fetched page by page.

        Raises:
            outbox.resilience.Transient: Twilio does not answer.
        """
        dates = {"date_sent_after": since.date()} if since else {}
        page = self._asked(lambda: self._client.messages.page(page_size=PAGE, **dates))
        while page is not None:
            yield from (str(message.sid) for message in page)
            page = self._asked(page.next_page)

    def _asked(self, ask: Callable[[], Any]) -> Any:
        """What a question to Twilio brings; None after the last page of a list."""
        with breaker("sms").guard():
            try:
                return ask()
            except TwilioRestException as refused:
                raise _refusal(refused) from refused
            except (TwilioException, ValueError, KeyError, TypeError) as unreadable:
                raise OutcomeUnknown("Twilio's answer cannot be read") from unreadable


class _HttpClient(TwilioHttpClient):
    """Twilio's own client, at the address that settings name."""

    def __init__(self, *, base: str, timeout: float) -> None:
        super().__init__(timeout=timeout)
        self._base = base

    def request(self, method: str, url: str, *args: Any, **options: Any) -> Any:
        if self._base:
            url = url.replace(TWILIO, self._base, 1)
        try:
            response = super().request(method, url, *args, **options)
        except requests.exceptions.RequestException as failure:
            raise http.failure_of("Twilio", failure) from failure
        http.check_available("Twilio", response.status_code, response.headers)
        return response


def _refusal(refused: TwilioRestException) -> Exception:
    if refused.code in RECIPIENT_ERRORS:
        return RecipientRefused(f"Twilio refuses the recipient: error {refused.code}")
    if refused.status < 400:
        return OutcomeUnknown(f"Twilio answered {refused.status}")
    return RequestRefused(f"Twilio refuses the request: status {refused.status}, error {refused.code}")
