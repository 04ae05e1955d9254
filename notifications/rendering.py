"""Renders events as texts for customers."""

from __future__ import annotations

import dataclasses

from django.template.loader import render_to_string

from notifications.models import Channel
from orders.contracts import (
    OrderCancelled,
    OrderEvent,
    OrderFulfilled,
    OrderPlaced,
    OrderRefunded,
    OrderRejected,
)

TEMPLATES: dict[type[OrderEvent], str] = {
    OrderPlaced: "placed",
    OrderRejected: "rejected",
    OrderFulfilled: "fulfilled",
    OrderCancelled: "cancelled",
    OrderRefunded: "refunded",
}
"""The events that notify customers, and the folder with the texts of each."""

LONGEST_SUBJECT = 200
LONGEST_SHORT = 459
"""Three segments of a text message; longer texts are truncated."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rendered:
    """The rendered texts. `html` is empty for channels without HTML."""

    subject: str
    text: str
    html: str = ""


def render(event: OrderEvent, *, channel: str) -> Rendered:
    """Render the event for one channel: long text and HTML for e-mail, a short text for the others."""
    subject = _one_line(_part(event, "subject.txt"))[:LONGEST_SUBJECT]
    if channel == Channel.EMAIL:
        return Rendered(
            subject=subject, text=_part(event, "body.txt").strip() + "\n", html=_part(event, "body.html")
        )
    return Rendered(subject=subject, text=_one_line(_part(event, "short.txt"))[:LONGEST_SHORT])


def _part(event: OrderEvent, name: str) -> str:
    return render_to_string(f"notifications/{TEMPLATES[type(event)]}/{name}", {"event": event})


def _one_line(text: str) -> str:
    return " ".join(text.split())
