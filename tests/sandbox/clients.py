"""The providers' own SDKs, pointed at the sandbox, and the requests that the tests send with them."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import smtplib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Any

import stripe
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth.transport.requests import AuthorizedSession
from google.oauth2 import service_account
from twilio.http.http_client import TwilioHttpClient
from twilio.rest import Client as TwilioClient

from orderflow.sandbox.access import authorization
from orderflow.sandbox.launch import Sandbox

ACCOUNT = "AC" + "0" * 32
SENDER = "+15005550006"
SEND_URL = "/v1/projects/shop/messages:send"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    server: Sandbox,
    method: str,
    path: str,
    body: object = None,
    headers: Mapping[str, str] | None = None,
    *,
    timeout: float = 5,
) -> Answer:
    """Send one request over a connection of its own; a body that is no text is sent as JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=timeout)
    sent = dict(headers or {})
    if path.startswith("/_") or server.name == "mailbox":
        sent.setdefault("Authorization", authorization(server.password))
    if body is not None and not isinstance(body, str | bytes):
        sent.setdefault("Content-Type", "application/json")
        body = json.dumps(body)
    try:
        connection.request(method, path, body, sent)  # type: ignore[arg-type]
        answer = connection.getresponse()
        return Answer(answer.status, dict(answer.getheaders()), answer.read())
    finally:
        connection.close()


def stripe_client(server: Sandbox, *, key: str = "sk_test_sandbox", timeout: float = 5) -> stripe.StripeClient:
    return stripe.StripeClient(
        key,
        base_addresses={"api": server.url},
        max_network_retries=0,
        http_client=stripe.RequestsClient(timeout=timeout),
    )


def payment(**changed: Any) -> Any:
    return {
        "amount": 4_200,
        "currency": "gbp",
        "payment_method": "pm_card_visa",
        "payment_method_types": ["card"],
        "confirm": True,
        "metadata": {"order_id": "order-1"},
    } | changed


class _Rerouted(TwilioHttpClient):  # type: ignore[misc]
    """Twilio's own client, talking to another host."""

    def __init__(self, url: str) -> None:
        super().__init__(timeout=5)
        self._url = url

    def request(self, method: str, url: str, *args: Any, **options: Any) -> Any:
        return super().request(method, url.replace("https://api.twilio.com", self._url), *args, **options)


def twilio_client(server: Sandbox) -> Any:
    return TwilioClient(ACCOUNT, "token", http_client=_Rerouted(server.url))


@functools.cache
def _private_key() -> str:
    return (
        rsa.generate_private_key(65537, 2048)
        .private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        .decode()
    )


def push_session(server: Sandbox) -> Any:
    account = {
        "type": "service_account",
        "client_email": "shop@example.com",
        "private_key": _private_key(),
        "private_key_id": "1",
        "project_id": "shop",
        "token_uri": f"{server.url}/token",
    }
    scope = "https://www.googleapis.com/auth/firebase.messaging"
    credentials = service_account.Credentials.from_service_account_info(account, scopes=[scope])
    return AuthorizedSession(credentials)


def send_push(server: Sandbox, session: Any, **message: Any) -> Any:
    sent = {
        "token": "device-1",
        "notification": {"title": "Shipped", "body": "Your order is on its way"},
    } | message
    return session.post(f"{server.url}{SEND_URL}", json={"message": sent}, timeout=5)


def email(**changed: str) -> EmailMessage:
    message = EmailMessage()
    headers = {
        "From": "shop@example.com",
        "To": "ada@example.com",
        "Subject": "Order OF-1 is on its way",
        "Message-ID": "<order-1-shipped@example.com>",
    } | changed
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    message.set_content("Hello Ada, your parcel costs £ 0.")
    message.add_alternative("<p style='color: teal'>Hello <b>Ada</b></p>", subtype="html")
    return message


@contextlib.contextmanager
def mail_client(server: Sandbox, *, password: str | None = None) -> Iterator[smtplib.SMTP]:
    """A connection that has logged in; with an empty password, one that has not."""
    # With a name of its own, else smtplib asks the name service for it.
    with smtplib.SMTP("127.0.0.1", server.smtp_port or 0, local_hostname="tests", timeout=5) as connection:
        if password != "":
            connection.login("sandbox", server.password if password is None else password)
        yield connection


def send_email(server: Sandbox, message: EmailMessage) -> dict[str, tuple[int, bytes]]:
    with mail_client(server) as connection:
        return connection.send_message(message)


def shipment(**changed: Any) -> dict[str, Any]:
    return {
        "order_id": "order-1",
        "order_number": "OF-1",
        "country": "GB",
        "lines": [{"sku": "85123A", "quantity": 6}],
    } | changed


def ship(server: Sandbox, key: str | None = "order-1-ship", body: object = None, **options: Any) -> Answer:
    headers = {"Authorization": "Bearer token"} | ({"Idempotency-Key": key} if key is not None else {})
    return ask(server, "POST", "/shipments", shipment() if body is None else body, headers, **options)
