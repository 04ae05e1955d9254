"""
Push notifications through FCM's HTTP v1 API, with Google's own library for the access token.

Not through firebase-admin: it brings a dozen services along, and its address cannot be set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import requests
from django.conf import settings
from google.auth.exceptions import GoogleAuthError, RefreshError, TransportError
from google.auth.transport.requests import AuthorizedSession
from google.oauth2 import service_account

from notifications.channels import http
from notifications.models import Notification
from notifications.ports import OutcomeUnknown, RecipientRefused, RequestRefused
from outbox.resilience import Outage, Transient, breaker

SCOPE = "https://www.googleapis.com/auth/firebase.messaging"

GOOGLE = "https://fcm.googleapis.com"

RECIPIENT_ERRORS = frozenset({"UNREGISTERED", "SENDER_ID_MISMATCH"})

TIME_TO_LIVE = "86400s"
"""News of an order that is a day old is in the customer's mailbox; a phone need not ring for it any more."""


class PushChannel:
    """
    `notifications.ports.Channel` on FCM.

    FCM knows no idempotency keys. A notification that is sent twice replaces itself on the phone, by
    its collapse key.
    """

    def __init__(self) -> None:
        self._url = f"{settings.FCM_API_BASE.rstrip('/')}/v1/projects/{settings.FCM_PROJECT_ID}/messages:send"
        self._timeout = settings.PROVIDER_TIMEOUT.total_seconds()
        kind = service_account.Credentials if settings.FCM_API_BASE.startswith(GOOGLE) else _OwnCredentials
        credentials = kind.from_service_account_file(settings.FCM_CREDENTIALS_FILE, scopes=[SCOPE])
        self._session = AuthorizedSession(credentials, refresh_timeout=self._timeout)

    def send(self, notification: Notification) -> str:
        """See `notifications.ports.Channel.send`."""
        with breaker("push").guard():
            response = self._post({"message": compose(notification)})
            http.check_available("FCM", response.status_code, response.headers)
            return _name_in(response)

    def find(self, notification: Notification) -> Sequence[str]:
        """Nothing: FCM cannot be asked what it has taken."""
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
                raise Transient("Google gives no access token now") from failure
            raise RequestRefused("Google gives no access token for this service account") from failure
        except GoogleAuthError as failure:
            raise RequestRefused(f"Google does not take our credentials: {failure}") from failure
        except requests.exceptions.RequestException as failure:
            raise http.failure_of("FCM", failure) from failure
        return response


class _OwnCredentials(service_account.Credentials):
    """
    Credentials for another FCM than Google's.

    With each new token Google's library asks Google, in a thread, where that token may be used; a
    token of somebody else's is none of Google's business.
    """

    def _is_regional_access_boundary_lookup_required(self) -> bool:
        return False


def compose(notification: Notification) -> dict[str, Any]:
    """The message in FCM's shape."""
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
    """What makes a second copy replace the first."""
    return f"notification-{notification.pk}"


def _name_in(response: requests.Response) -> str:
    try:
        answer = response.json()
    except ValueError as unreadable:
        raise OutcomeUnknown("FCM's answer cannot be read") from unreadable
    if not isinstance(answer, dict):
        raise OutcomeUnknown("FCM's answer is not an object")
    if response.status_code == 200:
        if not answer.get("name"):
            raise OutcomeUnknown("FCM's answer has no id")
        return str(answer["name"])
    error = answer.get("error") or {}
    codes = {str(detail.get("errorCode")) for detail in error.get("details") or []}
    if codes & RECIPIENT_ERRORS or "registration token" in str(error.get("message", "")):
        raise RecipientRefused(f"FCM refuses the device: {', '.join(sorted(codes)) or error.get('status')}")
    raise RequestRefused(f"FCM answered {response.status_code}: {error.get('status', '')}")
