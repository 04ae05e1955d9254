"""What holds for every trace: one root, no orphan, and no gap that nothing explains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.traces.receiver import Received

LONGEST_GAP = 1.0
"""Seconds without any span that need no explanation."""

TOLERANCE = 0.05
"""Seconds by which the clocks of an event and of the spans around a gap may differ."""

EXPLANATIONS = frozenset(
    {
        "message.sent",  # it has been in its queue since then
        "message.waited",  # in the outbox
        "message.redelivered",  # its former delivery was postponed, or lost
        "message.retried",  # it waits for its next quick try
        "step.postponed",  # it waits in the outbox for its next delivery
    }
)
"""Events that say why nothing happens before the span they belong to, or after it."""

OPERATIONS = {"create": "producer", "send": "client", "process": "consumer", "settle": "client"}
"""Operations of the messaging conventions, and the kind of their spans."""


def roots(spans: Sequence[Received]) -> list[Received]:
    return [span for span in spans if not span.parent]


def orphans(spans: Sequence[Received]) -> list[Received]:
    known = {span.id for span in spans}
    return [span for span in spans if span.parent and span.parent not in known]


def gaps(spans: Sequence[Received]) -> Iterator[tuple[float, float]]:
    """Yield the times of more than `LONGEST_GAP` in which no span was open."""
    ordered = sorted(spans, key=lambda span: span.began)
    until = ordered[0].ended
    for span in ordered[1:]:
        if span.began - until > LONGEST_GAP:
            yield until, span.began
        until = max(until, span.ended)


def unexplained(spans: Sequence[Received]) -> list[tuple[float, float]]:
    """Return the gaps without an event, at a span beside the gap, that explains it."""
    return [gap for gap in gaps(spans) if not any(_explains(span, *gap) for span in spans)]


def _explains(span: Received, begin: float, end: float) -> bool:
    is_beside = abs(span.ended - begin) <= TOLERANCE or abs(span.began - end) <= TOLERANCE
    return is_beside and any(name in EXPLANATIONS for name, _, _ in span.events)


def assert_is_whole(spans: Sequence[Received]) -> None:
    """Fail unless these are one tree that explains itself."""
    assert len(roots(spans)) == 1, outline(spans)
    assert not orphans(spans), outline(spans)
    assert not unexplained(spans), outline(spans)


def assert_follows_the_conventions(spans: Sequence[Received]) -> None:
    """Fail if the name, kind or attributes of a messaging span are not those of the conventions."""
    for span in spans:
        if operation := span.attributes.get("messaging.operation.name"):
            assert span.name == f"{operation} {span.attributes['messaging.destination.name']}"
            assert span.kind == OPERATIONS[span.attributes["messaging.operation.type"]]
            assert span.attributes["messaging.system"]
            is_batch = "messaging.batch.message_count" in span.attributes
            assert is_batch or span.attributes["messaging.message.id"]


def outline(spans: Sequence[Received]) -> str:
    """Return a trace as text, for people."""
    if not spans:
        return "no spans"
    began = min(span.began for span in spans)
    return "\n".join(
        f"{span.began - began:8.3f} {span.ended - span.began:8.3f} {span.id} < {span.parent or '-':16} "
        f"{span.service:20} {span.name} {span.attributes.get('outbox.outcome', '')} {span.error or ''} "
        f"{[name for name, _, _ in span.events]}"
        for span in sorted(spans, key=lambda span: span.began)
    )
