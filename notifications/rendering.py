"""An event as the text a customer reads."""

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
"""The events that notify, and the folder of each one's texts."""

LONGEST_SUBJECT = 200
LONGEST_SHORT = 459
"""Three parts of a text message; longer ones are cut."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rendered:
    """What is sent. A channel without HTML has none."""

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
