"""
What the machinery's pages show of texts and JSON that may name customers.

Everything passes the redaction of the logs, and the contact of the message at hand is known by name.
"""

from __future__ import annotations

from typing import Any

from orderflow.observability import redaction
from orderflow.personal.contact import Contact
from outbox.admin import parts

HIDDEN = "[hidden]"


def connect() -> None:
    """Let the outbox's pages mask by what is known here. Called once by `apps.ready()`."""
    parts.mask_with(mask)


def mask(value: Any, said: Any) -> Any:
    """
    A text or JSON without contact data and secrets; ids, names of tasks and numbers stay.

    `said` is the payload of the message that it is about, whose customer is known by it; None if there is none.
    """
    contact = Contact.of([said] if isinstance(said, dict) else [])
    if isinstance(value, str):
        return redaction.redacted_text(contact.without(value, by=HIDDEN))
    return redaction.redacted(contact.without_in(value, by=HIDDEN))
