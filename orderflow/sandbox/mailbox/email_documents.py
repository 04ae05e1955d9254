"""An e-mail in the ledger: the envelope, the headers, and the text and HTML parts."""

from __future__ import annotations

import email
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import Message
from typing import Any


def document(content: bytes, *, mail_from: str, recipients: list[str]) -> dict[str, Any]:
    """Parse a message. A malformed one still gives a readable document."""
    # Parsed with the compat32 policy: newer policies parse every header, which takes ten times as long.
    message = email.message_from_bytes(content)
    headers = [[name, _header(text)] for name, text in message.raw_items()]
    return {
        "message_id": _first(headers, "message-id"),
        "mail_from": _sound(mail_from),
        "recipients": [_sound(recipient) for recipient in recipients],
        "from": _first(headers, "from"),
        "to": _first(headers, "to"),
        "subject": _first(headers, "subject"),
        "date": _first(headers, "date"),
        "headers": headers,
        "text": _part(message, "text/plain"),
        "html": _part(message, "text/html"),
        "raw": content.decode("utf-8", "backslashreplace"),
        "duplicates": 0,
    }


def _header(text: str) -> str:
    text = "".join(_sound(text).splitlines())
    try:
        return str(make_header(decode_header(text)))
    except (ValueError, LookupError, HeaderParseError):  # an unknown charset, or invalid base64
        return text


def _part(message: Message, media_type: str) -> str | None:
    """Return the first readable part of this type, or None if there is none."""
    for part in message.walk():
        if part.get_content_type() == media_type and part.get_content_disposition() != "attachment":
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            try:
                return content.decode(part.get_content_charset() or "utf-8", "backslashreplace")
            except (LookupError, ValueError):  # an unknown charset
                return content.decode("utf-8", "backslashreplace")
    return None


def _sound(text: str) -> str:
    # Non-ASCII bytes arrive as surrogates: decode them if they are text, otherwise make them visible.
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _first(headers: list[list[str]], wanted: str) -> str:
    return next((value for name, value in headers if name.lower() == wanted), "")
