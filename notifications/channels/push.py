"""
Push notifications through FCM's HTTP v1 API, with Google's library for the access token.

firebase-admin is not used: it contains a dozen other services, and its address cannot be configured.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Sequence
from typing import Any

import requests
from django.conf import settings
from google.auth.exceptions import GoogleAuthError, RefreshError, TransportError
from google.auth.transport.requests import AuthorizedSession, Request
from google.oauth2 import service_account

from notifications.channels import http
from notifications.models import Channel, Notification
from notifications.ports import OutcomeUnknown, RecipientRefused, RequestRefused
from outbox.database import storable
from outbox.http import answers, bounded
from outbox.resilience import CredentialsRefused, Outage, breaker

SCOPE = "https://www.googleapis.com/auth/firebase.messaging"

GOOGLE = "https://fcm.googleapis.com"
NOWHERE = "http://not-configured.invalid"
"""The address that is called if none is configured, so that Google is never called by accident."""

RECIPIENT_ERRORS = frozenset({"UNREGISTERED"})
"""FCM's codes for a device that no longer exists."""

CHECKED_NOTIFICATIONS = 1000
"""The number of latest notifications that are checked for one that has reached its device."""

UNAUTHORISED = (401, 403, 404)
"""All other errors with these statuses concern our account, including THIRD_PARTY_AUTH_ERROR, the key for the
push service of Apple or of a browser. 404 without a code means that the project does not exist."""

SENDER_MISMATCH = "SENDER_ID_MISMATCH"
"""The device belongs to another project than ours. FCM does not tell which of the two is wrong."""

LONGEST_CODE, MOST_CODES = 50, 5
"""Limits for the error codes that are repeated: their length and their number."""

TIME_TO_LIVE = "86400s"
"""A push that is older than a day is not delivered: the customer has the e-mail by then."""


class PushChannel:
    """
    `notifications.ports.ChannelAdapter` on FCM.

    FCM has no idempotency keys. A notification that is sent twice replaces the first one on the phone, because
    both have the same collapse key.
    """

    can_look_up = False

    def __init__(self) -> None:
        base = settings.FCM_API_BASE.rstrip("/") or NOWHERE
        self._url = f"{base}/v1/projects/{settings.FCM_PROJECT_ID}/messages:send"
        self._timeout = settings.PROVIDER_TIMEOUT.total_seconds()

    @functools.cached_property
    def _session(self) -> AuthorizedSession:
        """
        Created at the first use, so that an unreadable file fails like wrong credentials.

        Raises:
            CredentialsRefused: if the file cannot be read.
        """
        kind = service_account.Credentials if settings.FCM_API_BASE.startswith(GOOGLE) else _OwnCredentials
        try:
            credentials = kind.from_service_account_file(settings.FCM_CREDENTIALS_FILE, scopes=[SCOPE])
        except (OSError, ValueError, GoogleAuthError) as unreadable:
            raise _refused(f"nothing, the file cannot be read: {type(unreadable).__name__}") from unreadable
        tokens = Request(bounded.bound(requests.Session(), seconds=self._timeout))
        made = AuthorizedSession(credentials, refresh_timeout=self._timeout, auth_request=tokens)
        bounded.bound(made, seconds=self._timeout)
        return made

    def send(self, notification: Notification) -> str:
        """See `notifications.ports.ChannelAdapter.send`."""
        with breaker("push").guard():
            response = self._post({"message": compose(notification)})
            http.check_available("FCM", response.status_code, response.headers)
            return _name_in(response)

    def find(self, notification: Notification, *, since: dt.datetime) -> Sequence[str]:
        """Return nothing: FCM has no look-up."""
        return []

    def _post(self, body: dict[str, Any]) -> requests.Response:
        try:
            response: requests.Response = self._session.post(
                self._url, json=body, timeout=self._timeout, max_allowed_time=2 * self._timeout
            )
        except TransportError as failure:
            raise Outage("Google's token server does not answer") from failure
        except RefreshError as failure:
            if failure.retryable:
                raise Outage("Google gives no access token now") from failure
            raise _refused("no access token") from failure
        except GoogleAuthError as failure:
            raise _refused(type(failure).__name__) from failure
        except requests.exceptions.InvalidHeader as unusable:
            raise self._without_its_token() from unusable
        except requests.exceptions.RequestException as failure:
            raise http.failure_of("FCM", failure, address="FCM_API_BASE") from failure
        except answers.UNREADABLE as unusable:
            raise self._without_its_token() from unusable
        return response

    def _without_its_token(self) -> Outage:
        """Drop an unusable token; Google's library would keep it until it expires. Nothing was sent."""
        self.__dict__.pop("_session", None)
        return Outage("the access token that Google gives cannot be used")


class _OwnCredentials(service_account.Credentials):
    """
    Credentials for a server other than Google's.

    With each new token, Google's library sends the token to Google, in a thread, to look up where it may be
    used. A token of another server must not be sent to Google.
    """

    def _is_regional_access_boundary_lookup_required(self) -> bool:
        return False


def compose(notification: Notification) -> dict[str, Any]:
    """Return the message in FCM's format."""
    key = collapse_key_of(notification)
    return {
        "token": notification.recipient,
        "notification": {"title": notification.subject, "body": notification.text},
        "data": {
            "notification_id": str(notification.pk),
            "order_id": str(notification.order_id),
            "order_number": notification.order_number,
            "event": notification.template,
            "collapse_key": key,
        },
        "android": {"collapse_key": key, "ttl": TIME_TO_LIVE, "notification": {"tag": key}},
        "apns": {"headers": {"apns-collapse-id": key}},
    }


def collapse_key_of(notification: Notification) -> str:
    """Return the key with which a second copy replaces the first. Row ids may be reused after a restore."""
    return f"notification-{notification.message_id.hex}"


def _refused(answer: object) -> CredentialsRefused:
    return CredentialsRefused("FCM", settings="FCM_CREDENTIALS_FILE and FCM_PROJECT_ID", answer=answer)


def _has_worked() -> bool:
    """Whether our project has reached a device before, so that it is the right one. FCM's ids contain it."""
    latest = Notification.objects.filter(channel=Channel.PUSH).order_by("-created_at", "id")
    ids = latest.values_list("provider_message_id", flat=True)[:CHECKED_NOTIFICATIONS]
    return any(id_.startswith(f"projects/{settings.FCM_PROJECT_ID}/") for id_ in ids)


def _answer_of(response: requests.Response) -> dict[str, Any]:
    try:
        answer = response.json()
    except answers.UNREADABLE as unreadable:
        if response.status_code in UNAUTHORISED:  # a proxy refused, without JSON
            raise _refused(response.status_code) from unreadable
        raise OutcomeUnknown("FCM's answer cannot be read") from unreadable
    if not isinstance(answer, dict):
        raise OutcomeUnknown("FCM's answer is not an object")
    return answer


def _name_in(response: requests.Response) -> str:
    answer = _answer_of(response)
    if response.status_code == 200:
        with answers.reading("FCM's", OutcomeUnknown):
            return answers.identifier(answer.get("name"))
    error = answer.get("error")
    error = error if isinstance(error, dict) else {}
    codes, status = _codes_in(error), storable.text(error.get("status"), longest=LONGEST_CODE)
    is_of_device = SENDER_MISMATCH in codes and _has_worked()
    is_token_error = "registration token" in storable.note(error.get("message"))
    if is_of_device or codes & RECIPIENT_ERRORS or is_token_error:
        raise RecipientRefused(f"FCM refuses the device: {', '.join(sorted(codes)) or status}")
    if response.status_code in UNAUTHORISED:
        raise _refused(", ".join(sorted(codes)) or response.status_code)
    raise RequestRefused(f"FCM answered {response.status_code}: {status}")


def _codes_in(error: dict[str, Any]) -> set[str]:
    """FCM's own codes in an error, if there are any."""
    details = error.get("details")
    named = (
        [detail.get("errorCode") for detail in details if isinstance(detail, dict)]
        if isinstance(details, list)
        else []
    )
    return {storable.text(code, longest=LONGEST_CODE) for code in named[:MOST_CODES]}
