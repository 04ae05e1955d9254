"""Push notifications compatible with FCM HTTP v1, and the OAuth token endpoint."""

from __future__ import annotations

import argparse
import base64
import binascii
import json
import secrets
import time
from typing import Any

from .control import Control
from .ledger import Ledger
from .messages import Answer, Refusal, Request, json_answer
from .provider import Provider, route

GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
TOKEN_SECONDS = 3600
LARGEST_PAYLOAD = 4096
# FCM's names for its statuses: (status, FCM's error code).
STATUSES: dict[int, tuple[str, str | None]] = {
    400: ("INVALID_ARGUMENT", "INVALID_ARGUMENT"),
    401: ("UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR"),
    403: ("PERMISSION_DENIED", None),  # concerns the account; SENDER_ID_MISMATCH concerns one device
    404: ("NOT_FOUND", "UNREGISTERED"),
    429: ("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"),
    500: ("INTERNAL", "INTERNAL"),
    503: ("UNAVAILABLE", "UNAVAILABLE"),
}


def create(_arguments: argparse.Namespace, control: Control) -> PushNotifications:
    return PushNotifications(control.ledger)


class FcmError(Refusal):
    """An error of FCM; `code` is its reason, None where Google responds before FCM is involved."""

    def __init__(self, status: int, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    def answer(self) -> Answer:
        usual = STATUSES[500] if self.status >= 500 else STATUSES[400]
        error: dict[str, Any] = {
            "code": self.status,
            "message": str(self),
            "status": STATUSES.get(self.status, usual)[0],
        }
        if self.code is not None:
            kind = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
            error["details"] = [{"@type": kind, "errorCode": self.code}]
        return json_answer(self.status, {"error": error})


class OAuthError(Refusal):
    def __init__(self, error: str, description: str) -> None:
        super().__init__(description)
        self.error = error

    def answer(self) -> Answer:
        return json_answer(400, {"error": self.error, "error_description": str(self)})


class PushNotifications(Provider):
    """FCM. It has no idempotency keys: sending twice gives two notifications."""

    name = "push"

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(ledger)
        with ledger.transaction() as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS access_tokens (token TEXT PRIMARY KEY, expires_at REAL NOT NULL)"
            )
        self.routes = [
            route("POST", "/token", self.issue_token),
            route("POST", "/v1/projects/{project}/messages:send", self.send),
        ]

    def failure(self, status: int, message: str) -> Answer:
        return FcmError(status, message, code=STATUSES.get(status, STATUSES[500])[1]).answer()

    def issue_token(self, request: Request) -> Answer:
        form = dict(request.form())
        if form.get("grant_type") != GRANT:
            raise OAuthError("unsupported_grant_type", f"Invalid grant_type: it must be {GRANT}.")
        claims = _claims(form.get("assertion", ""))
        if not claims.get("iss"):
            raise OAuthError("invalid_grant", "Invalid JWT: iss is missing.")
        expires_at = claims.get("exp")
        if not isinstance(expires_at, int | float) or expires_at <= time.time():
            raise OAuthError(
                "invalid_grant", "Invalid JWT: it must be a short-lived token, and exp in the future."
            )
        request.pause()
        token = f"ya29.{secrets.token_urlsafe(32)}"
        with self.ledger.transaction() as connection:
            connection.execute("DELETE FROM access_tokens WHERE expires_at <= ?", (time.time(),))
            connection.execute("INSERT INTO access_tokens VALUES (?, ?)", (token, time.time() + TOKEN_SECONDS))
        return json_answer(200, {"access_token": token, "expires_in": TOKEN_SECONDS, "token_type": "Bearer"})

    def send(self, request: Request) -> Answer:
        self._require_token(request)
        message, validate_only = _message(request)
        token = message["token"]
        if request.path_values["project"].startswith("unknown"):
            raise FcmError(404, "Requested entity was not found.")
        if token.startswith("elsewhere"):
            raise FcmError(403, "SenderId mismatch", code="SENDER_ID_MISMATCH")
        if token.startswith("unregistered"):
            raise FcmError(404, "Requested entity was not found.", code="UNREGISTERED")
        if token.startswith("invalid"):
            raise FcmError(
                400, "The registration token is not a valid FCM registration token", code="INVALID_ARGUMENT"
            )
        request.pause()
        project = request.path_values["project"]
        name = f"projects/{project}/messages/{'fake_message_id' if validate_only else secrets.token_hex(12)}"
        if not validate_only:
            notification = message.get("notification") or {}
            document = {
                "name": name,
                "project": project,
                "token": token,
                "title": notification.get("title"),
                "body": notification.get("body"),
                "data": message.get("data") or {},
                "message": message,
            }
            self.ledger.record("push", name, document, labels=[("token", token)])
        return json_answer(200, {"name": name})

    def _require_token(self, request: Request) -> None:
        scheme, _, token = (request.headers.get("Authorization") or "").partition(" ")
        with self.ledger.transaction() as connection:
            known = connection.execute(
                "SELECT 1 FROM access_tokens WHERE token = ? AND expires_at > ?", (token.strip(), time.time())
            ).fetchone()
        if scheme.lower() != "bearer" or known is None:
            raise FcmError(
                401,
                "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or"
                " other valid authentication credential.",
            )


def _claims(assertion: str) -> dict[str, Any]:
    """
    Read the claims of a JWT. Its signature is not checked: any self-made key is accepted.

    Raises:
        OAuthError: if it is not a JWT.
    """
    parts = assertion.split(".")
    try:
        if len(parts) != 3 or not all(parts):
            raise ValueError("a JWT has three parts")
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        if not isinstance(claims, dict):
            raise ValueError("claims are an object")
    except (ValueError, binascii.Error):
        raise OAuthError("invalid_grant", "Invalid JWT: the assertion cannot be read.") from None
    return claims


def _message(request: Request) -> tuple[dict[str, Any], bool]:
    try:
        body = request.json()
    except ValueError:
        raise _invalid("Invalid JSON payload received.") from None
    message = body.get("message") if isinstance(body, dict) else None
    if not isinstance(message, dict):
        raise _invalid('Invalid value at "message": it must be an object.')
    token = message.get("token")
    if not isinstance(token, str) or not token:
        raise _invalid("Recipient of the message is not set: the sandbox sends to a token, not to topics.")
    notification, data = message.get("notification", {}), message.get("data", {})
    if not isinstance(notification, dict) or not isinstance(data, dict):
        raise _invalid('"notification" and "data" must be objects.')
    if not all(isinstance(value, str) for value in data.values()):
        raise _invalid('Invalid value at "message.data": every value must be a text.')
    if len(json.dumps({"notification": notification, "data": data}).encode()) > LARGEST_PAYLOAD:
        raise _invalid(f"Android message is too big: at most {LARGEST_PAYLOAD} bytes.")
    return message, bool(body.get("validate_only"))


def _invalid(message: str) -> FcmError:
    return FcmError(400, message, code="INVALID_ARGUMENT")
