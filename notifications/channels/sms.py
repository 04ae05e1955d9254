"""Text messages through Twilio's official SDK."""

from __future__ import annotations

import contextlib
import datetime as dt
import re
import threading
import unicodedata
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
from outbox.database import storable
from outbox.http import answers, bounded
from outbox.resilience import CredentialsRefused, Outage, SettingsRefused, breaker

TWILIO = "https://api.twilio.com"

SENDER_ERRORS = frozenset(
    {21212, 21267, 21601, 21603, 21606, 21659, 21660, 21661, 21701, 21702, 21703, 21704, 21705, 30032, 30034}
)
"""Twilio's codes for a sender that is missing, malformed, another account's, or not registered for texts."""

FROM_SHORT_CODES = frozenset({21606, 21659})
"""Codes that may concern the recipient if the sender is a short code, which reaches its own country only."""

SHORT_CODE = re.compile(r"[0-9]{3,8}")

ACCOUNT_ERRORS = frozenset({10001, 20003, 20005, 20006, 20008, 20404, 21608, 30002})
"""Twilio's codes for an account that is unknown, closed, suspended, or a trial account."""

BUSY = frozenset({14107, 20429, 21611, 30001, 63038})
"""Twilio's codes for full queues and exceeded rates."""

RECIPIENT_ERRORS = frozenset({21211, 21214, 21217, 21265, 21408, 21610, 21612, 21614, 21635})
"""Twilio's codes for numbers that are invalid, unreachable, forbidden or unsubscribed.

All codes are listed at twilio.com/docs/api/errors."""

SENT = frozenset(
    "accepted scheduled queued sending sent delivered undelivered read partially_delivered".split()  # noqa: SIM905
)
"""Statuses of messages that Twilio has accepted; an `undelivered` one has reached the network."""

UNSENT = frozenset({"failed", "canceled"})
"""Statuses of messages that have never left Twilio. See twilio.com/docs/messaging/api/message-resource."""

WORD = re.compile(r"[^\W_]+")

PAGE = 1000
"""Messages in one page of a list; this is Twilio's maximum."""

RECIPIENTS_PAGE = 100
"""Messages of one recipient in one page: more than most are sent while one try is open."""

CLOCKS_DIFFER = dt.timedelta(minutes=2)


NOWHERE = "http://not-configured.invalid"
"""The address that is called if none is configured, so that Twilio is never called by accident."""


class SmsChannel:
    """
    `notifications.ports.ChannelAdapter` on Twilio.

    Twilio has no idempotency keys, so messages of earlier tries are looked up by their text.
    """

    can_look_up = True

    def __init__(self) -> None:
        timeout = settings.PROVIDER_TIMEOUT.total_seconds()
        self._client = Client(
            settings.TWILIO_ACCOUNT_SID or "unset",
            settings.TWILIO_AUTH_TOKEN or "unset",
            http_client=_HttpClient(base=settings.TWILIO_API_BASE.rstrip("/") or NOWHERE, timeout=timeout),
        )

    def send(self, notification: Notification) -> str:
        """See `notifications.ports.ChannelAdapter.send`."""
        with breaker("sms").guard():
            message = _call(
                lambda: self._client.messages.create(
                    to=notification.recipient, from_=settings.TWILIO_FROM, body=notification.text
                )
            )
            with _reading():
                if message.status in UNSENT and (outage := _outage(message.error_code)):
                    raise outage
        with _reading():
            _check_sent(message)
            return answers.identifier(message.sid)

    def find(self, notification: Notification, *, since: dt.datetime) -> Sequence[str]:
        """
        Return the recipient's messages since then with this text, except those that Twilio has not sent.

        After a restore these can be many: all that the database has forgotten. Twilio lists the latest first.
        """
        since -= CLOCKS_DIFFER
        found = []
        for messages in self._pages(to=notification.recipient, page_size=RECIPIENTS_PAGE):
            with _reading():
                recent = [one for one in messages if one.date_created is None or one.date_created >= since]
                found += [
                    answers.identifier(message.sid)
                    for message in recent
                    if has_text(message.body, notification.text) and message.status not in UNSENT
                ]
            if not recent:
                break
        return found

    def sent(self, *, since: dt.datetime | None) -> Iterator[str]:
        """
        Yield Twilio's ids of all messages sent on the day of `since` or later, or of all messages.

        Raises:
            outbox.resilience.Transient: if Twilio does not answer.
        """
        dates = {"date_sent_after": since.date()} if since else {}
        for messages in self._pages(page_size=PAGE, **dates):
            with _reading():
                ids = [storable.identifier(message.sid) for message in messages]
            yield from ids

    def _pages(self, **filters: Any) -> Iterator[list[Any]]:
        """Yield the pages of a list of messages, latest first. The breaker sees a call for each page."""
        pages = answers.Pages("Twilio's")
        page = self._query(lambda: self._client.messages.page(**filters))
        while True:
            with _reading():
                messages = list(page)
                next_url = page.next_page_url
            yield messages
            if not next_url:
                return
            if not messages:
                raise answers.ListDoesNotEnd("Twilio's list has an empty page, and another one after it")
            pages.continue_after(next_url)
            page = self._query(page.next_page)

    def _query(self, request: Callable[[], Any]) -> Any:
        """Return the result of a read-only request to Twilio."""
        with breaker("sms").guard():
            return _call(request)


def _call(request: Callable[[], Any]) -> Any:
    """Return the result of a request to Twilio; convert its errors."""
    with _reading():
        try:
            return request()
        except TwilioRestException as refused:
            raise _refusal(refused) from refused
        except TwilioException as unreadable:
            raise OutcomeUnknown("Twilio's answer cannot be read") from unreadable


def _reading() -> contextlib.AbstractContextManager[None]:
    return answers.reading("Twilio's", OutcomeUnknown)


def has_text(body: Any, text: str) -> bool:
    """
    Return whether a message has this text, despite Twilio's changes.

    Twilio replaces some characters with shorter ones and adds a prefix to messages of trial accounts. The words
    and their order stay the same. The text about another order contains another order number.
    """
    wanted = _words(text)
    return bool(wanted.strip()) and wanted in _words(str(body or ""))


def _words(text: str) -> str:
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return " ".join(["", *WORD.findall(plain.casefold()), ""])


class _HttpClient(TwilioHttpClient):
    """
    Twilio's own client, with the address from the settings, for calls of several threads at the same time.

    Twilio's client keeps the last response in an attribute and returns it from there: with threads, it may be
    the response to another thread's message.
    """

    def __init__(self, *, base: str, timeout: float) -> None:
        self._of_thread = threading.local()
        super().__init__(timeout=timeout)
        bounded.bound(self.session, seconds=timeout)
        self._base = base

    @property
    def _test_only_last_response(self) -> Any:
        return getattr(self._of_thread, "response", None)

    @_test_only_last_response.setter
    def _test_only_last_response(self, response: Any) -> None:
        self._of_thread.response = response

    def request(self, method: str, url: str, *args: Any, **options: Any) -> Any:
        if not url.startswith(f"{TWILIO}/"):  # the address of the next page comes from the response
            raise OutcomeUnknown("Twilio's answer refers to another server, which is not called")
        url = url.replace(TWILIO, self._base, 1)
        try:
            response = super().request(method, url, *args, **options)
        except requests.exceptions.RequestException as failure:
            raise http.failure_of("Twilio", failure, address="TWILIO_API_BASE") from failure
        http.check_available("Twilio", response.status_code, response.headers)
        return response


def _check_sent(message: Any) -> None:
    """
    Raises:
        RecipientRefused: if Twilio has given up the message because of the recipient.
        RequestRefused: if Twilio has given it up for another reason.
        OutcomeUnknown: if its status is unknown.
    """
    if message.status in UNSENT:
        kind = RecipientRefused if message.error_code in RECIPIENT_ERRORS else RequestRefused
        raise kind(f"Twilio's message {message.sid} is {message.status}: error {message.error_code}")
    if message.status not in SENT:
        raise OutcomeUnknown(f"Twilio's message has the unknown status {message.status!r}")


def _outage(code: int | None) -> Outage | None:
    """The outage that an error code means; None if it concerns one message."""
    if code in BUSY:
        return Outage(f"Twilio accepts no more messages at the moment: error {code}")
    if code in ACCOUNT_ERRORS:
        return _unauthorised(f"error {code}")
    if code in SENDER_ERRORS and not (code in FROM_SHORT_CODES and SHORT_CODE.fullmatch(settings.TWILIO_FROM)):
        return SettingsRefused(f"Twilio rejects our sender (error {code})", settings="TWILIO_FROM")
    return None


def _unauthorised(answer: object) -> CredentialsRefused:
    return CredentialsRefused("Twilio", settings="TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN", answer=answer)


def _refusal(refused: TwilioRestException) -> Exception:
    if refused.code in RECIPIENT_ERRORS:
        return RecipientRefused(f"Twilio refuses the recipient: error {refused.code}")
    if outage := _outage(refused.code):
        return outage
    if refused.status in (401, 403, 404):
        return _unauthorised(refused.status)
    if refused.status < 400:
        return OutcomeUnknown(f"Twilio answered {refused.status}")
    return RequestRefused(f"Twilio refuses the request: status {refused.status}, error {refused.code}")
