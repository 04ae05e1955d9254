"""What the ledger keeps of an e-mail: the envelope, the headers and both texts a reader may see."""

from __future__ import annotations

import email
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import Message
from typing import Any


def document(content: bytes, *, mail_from: str, recipients: list[str]) -> dict[str, Any]:
    """Take a message apart. Whatever is wrong with it, something readable comes out."""
    # Parsed the old way: the newer policies take every header apart, at ten times the price.
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
    except (ValueError, LookupError, HeaderParseError):  # A charset nobody knows, or base64 that is none.
        return text


def _part(message: Message, media_type: str) -> str | None:
    """Return the first part of this type that is there to be read; None: there is none."""
    for part in message.walk():
        if part.get_content_type() == media_type and part.get_content_disposition() != "attachment":
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            try:
                return content.decode(part.get_content_charset() or "utf-8", "backslashreplace")
            except (LookupError, ValueError):  # A charset nobody knows.
                return content.decode("utf-8", "backslashreplace")
    return None


def _sound(text: str) -> str:
    # Bytes that are no ASCII arrive as surrogates: made text where they are, made visible where they are not.
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _first(headers: list[list[str]], wanted: str) -> str:
    return next((value for name, value in headers if name.lower() == wanted), "")
