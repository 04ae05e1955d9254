"""
Masking on the outbox's pages, of texts and JSON that may name customers.

Everything passes the redaction of the logs; the contact of the message at hand is masked exactly.
"""

from __future__ import annotations

from typing import Any

from orderflow.observability import redaction
from orderflow.personal.contact import Contact
from outbox.admin import parts

HIDDEN = "[hidden]"


def connect() -> None:
    """Let the outbox's pages use this masking. Called by `orderflow.admin`."""
    parts.mask_with(mask)


def mask(value: Any, payload: Any) -> Any:
    """
    Return a text or JSON without contact data and secrets; ids, names of tasks and numbers stay.

    `payload` is that of the message that the value belongs to, which contains the customer's contact; None if
    there is no message.
    """
    contact = Contact.of([payload] if isinstance(payload, dict) else [])
    if isinstance(value, str):
        return redaction.redacted_text(contact.without(value, by=HIDDEN))
    return redaction.redacted(contact.without_in(value, by=HIDDEN))
