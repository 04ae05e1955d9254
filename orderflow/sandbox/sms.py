"""Text messages compatible with Twilio's API, with the magic numbers of its test credentials."""

from __future__ import annotations

import argparse
import base64
import binascii
import datetime as dt
import re
import secrets
from email.utils import format_datetime
from typing import Any
from urllib.parse import urlencode

from . import ledger as ledgers
from .control import Control
from .ledger import Condition, Ledger
from .messages import Answer, Refusal, Request, json_answer
from .provider import Provider, route

E164 = re.compile(r"\+[1-9]\d{6,14}")
LONGEST_BODY = 1_600
LARGEST_PAGE, USUAL_PAGE = 1_000, 50
GSM_7 = re.compile(
    r"[\w @£$¥èéùìòÇØøÅåΔΦΓΛΩΠΨΣΘΞÆæßÉ!\"#¤%&'()*+,\-./:;<=>?¡ÄÖÑÜ§¿äöñüà\r\n^{}\\\[~\]|€]*", re.ASCII
)

MAGIC_TO = {
    "+15005550001": (21211, "Invalid 'To' Phone Number: +15005550001"),
    "+15005550002": (21612, "The 'To' phone number: +15005550002, is not currently reachable."),
    "+15005550003": (21408, "Permission to send an SMS has not been enabled for the region indicated by 'To'"),
    "+15005550004": (21610, "Attempt to send to unsubscribed recipient"),
    "+15005550009": (21614, "'To' number is not a valid mobile number: +15005550009"),
}
MAGIC_FROM = {
    "+15005550001": (21212, "Invalid 'From' Phone Number: +15005550001"),
    "+15005550007": (21606, "The 'From' phone number +15005550007 is not a valid, SMS-capable number."),
    "+15005550008": (21611, "SMS queue is full."),
}
CODES = {401: 20003, 404: 20404, 405: 20004, 429: 20429, 500: 20500, 503: 20503}


def create(_arguments: argparse.Namespace, control: Control) -> TextMessages:
    return TextMessages(control.ledger)


class TwilioError(Refusal):
    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    def answer(self) -> Answer:
        more = f"https://www.twilio.com/docs/errors/{self.code}"
        error = {"code": self.code, "message": str(self), "more_info": more, "status": self.status}
        return json_answer(self.status, error)


class TextMessages(Provider):
    """A Twilio account. Like Twilio it has no idempotency keys: sending twice gives two messages."""

    name = "sms"

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(ledger)
        messages = "/2010-04-01/Accounts/{account}/Messages"
        self.routes = [
            route("POST", f"{messages}.json", self.send),
            route("GET", f"{messages}.json", self.list_messages),
            route("GET", f"{messages}/{{id}}.json", self.show),
        ]

    def answer(self, request: Request) -> Answer:
        if not _authenticated(request):
            refusal = TwilioError(401, 20003, "Authenticate").answer()
            refusal.headers["WWW-Authenticate"] = 'Basic realm="Twilio API"'
            return refusal
        return super().answer(request)

    def failure(self, status: int, message: str) -> Answer:
        message = "Too Many Requests" if status == 429 else message
        return TwilioError(status, CODES.get(status, 20500 if status >= 500 else 20001), message).answer()

    def send(self, request: Request) -> Answer:
        form = dict(request.form())
        recipient, sender, body = form.get("To", ""), form.get("From", ""), form.get("Body", "")
        _check(recipient, sender, body, service=form.get("MessagingServiceSid", ""))
        request.pause()
        now = format_datetime(dt.datetime.now(dt.UTC))
        account, sid = request.path_values["account"], f"SM{secrets.token_hex(16)}"
        message: dict[str, Any] = {
            "sid": sid,
            "account_sid": account,
            "api_version": "2010-04-01",
            "body": body,
            "date_created": now,
            "date_sent": None,
            "date_updated": now,
            "direction": "outbound-api",
            "error_code": None,
            "error_message": None,
            "from": sender or None,
            "messaging_service_sid": form.get("MessagingServiceSid"),
            "num_media": "0",
            "num_segments": str(_segments(body)),
            "price": None,
            "price_unit": "USD",
            "status": request.state or "queued",
            "subresource_uris": {"media": f"/2010-04-01/Accounts/{account}/Messages/{sid}/Media.json"},
            "to": recipient,
            "uri": f"/2010-04-01/Accounts/{account}/Messages/{sid}.json",
        }
        # The response to the sender says queued; later requests say delivered.
        arrived = message | {"status": request.state or "delivered", "date_sent": now}
        self.ledger.record(
            "sms", sid, arrived, labels=[("account", account), ("to", recipient), ("from", sender)]
        )
        return json_answer(201, message)

    def show(self, request: Request) -> Answer:
        entry = self.ledger.get("sms", request.path_values["id"])
        if entry is None or entry.document["account_sid"] != request.path_values["account"]:
            raise TwilioError(404, 20404, f"The requested resource {request.path} was not found")
        return json_answer(200, entry.document)

    def list_messages(self, request: Request) -> Answer:
        size = _number(request, "PageSize", USUAL_PAGE)
        if not 1 <= size <= LARGEST_PAGE:
            raise TwilioError(400, 20006, f"Page size must be between 1 and {LARGEST_PAGE}")
        page = _number(request, "Page", 0)
        conditions = [ledgers.labelled("account", request.path_values["account"]), *_dates(request)]
        for name in ("To", "From"):
            if value := request.query.get(name):
                conditions.append(ledgers.labelled(name.lower(), value))
        place = request.query.get("PageToken", "")
        if place.isdigit():
            conditions.append(ledgers.older_than(int(place)))
        found = self.ledger.find("sms", *conditions, limit=size + 1)
        shown = [entry.document for entry in found[:size]]
        further = None
        if len(found) > size:
            further = _address(request, Page=page + 1, PageSize=size, PageToken=found[size - 1].seq)
        return json_answer(
            200,
            {
                "messages": shown,
                "start": page * size,
                "end": page * size + max(len(shown) - 1, 0),
                "page": page,
                "page_size": size,
                "first_page_uri": _address(request, Page=0, PageSize=size),
                "previous_page_uri": None,
                "next_page_uri": further,
                "uri": _address(request, Page=page, PageSize=size),
            },
        )


def _authenticated(request: Request) -> bool:
    scheme, _, credentials = (request.headers.get("Authorization") or "").partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        user, _, password = base64.b64decode(credentials.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return False
    return bool(user and password)


def _check(recipient: str, sender: str, body: str, *, service: str) -> None:
    """
    Refuse what Twilio refuses.

    Raises:
        TwilioError: with Twilio's error code.
    """
    if not recipient:
        raise TwilioError(400, 21604, "A 'To' phone number is required.")
    if not sender and not service:
        raise TwilioError(400, 21603, "A 'From' phone number is required.")
    if not body:
        raise TwilioError(400, 21602, "Message body is required.")
    if len(body) > LONGEST_BODY:
        raise TwilioError(
            400, 21617, f"The concatenated message body exceeds the {LONGEST_BODY} character limit"
        )
    for number, magic in ((recipient, MAGIC_TO), (sender, MAGIC_FROM)):
        if number in magic:
            raise TwilioError(400, *magic[number])
    if not E164.fullmatch(recipient):
        raise TwilioError(400, 21211, f"Invalid 'To' Phone Number: {recipient[:20]}")


def _segments(body: str) -> int:
    """Count the segments that networks send: shorter ones if a character is not in the 7-bit alphabet."""
    single, part = (160, 153) if GSM_7.fullmatch(body) else (70, 67)
    length = len(body) if single == 160 else len(body.encode("utf-16-le")) // 2
    return 1 if length <= single else -(-length // part)


def _dates(request: Request) -> list[Condition]:
    """Read DateSent, `DateSent>` and `DateSent<`: days or times, in UTC."""
    conditions: list[Condition] = []
    for name, operator in (("DateSent", "on"), ("DateSent>", ">="), ("DateSent<", "<=")):
        text = request.query.get(name)
        if not text:
            continue
        try:
            moment = dt.datetime.fromisoformat(text.replace("Z", "+00:00"))
        except ValueError:
            raise TwilioError(400, 20001, f"{name} must be a date, as in 2026-01-31") from None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
        whole_day = len(text) == len("2026-01-31")
        if operator == "on" or (whole_day and operator == "<="):
            conditions.append(("recorded_at < ?", ((moment + dt.timedelta(days=1)).timestamp(),)))
        if operator == "on":
            conditions.append(("recorded_at >= ?", (moment.timestamp(),)))
        elif not (whole_day and operator == "<="):
            conditions.append((f"recorded_at {operator} ?", (moment.timestamp(),)))
    return conditions


def _number(request: Request, name: str, default: int) -> int:
    text = request.query.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise TwilioError(400, 20001, f"{name} must be a number")
    return int(text)


def _address(request: Request, **place: int) -> str:
    kept = {
        name: value for name, value in request.query.items() if name not in ("Page", "PageSize", "PageToken")
    }
    return f"{request.path}?{urlencode({**kept, **place})}"
