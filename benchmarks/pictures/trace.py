"""
The picture of a trace: `python -m benchmarks.pictures.trace trace.json > trace.svg`.

The file is OTLP/JSON, as the file exporter of OpenTelemetry's Collector writes it. The one in the documentation
is recorded by `tests/traces/test_stuck_order.py`.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.pictures.svg import Canvas

WIDTH, LEFT, TOP, ROW, RIGHT = 980, 400, 92, 26, 24
ERROR = 2
"""The status code of a failed span (opentelemetry.proto.trace.v1)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bar:
    """A span: times in seconds since the beginning of its trace."""

    id: str
    parent: str
    name: str
    service: str
    began: float
    ended: float
    has_failed: bool
    outcome: str
    events: tuple[tuple[str, float], ...]


def read(document: Mapping[str, Any]) -> list[Bar]:
    """Return the spans of a document that holds one trace."""
    found = [
        (span, _attributes(process["resource"])["service.name"])
        for process in document["resourceSpans"]
        for scope in process["scopeSpans"]
        for span in scope["spans"]
    ]
    zero = min(int(span["startTimeUnixNano"]) for span, _ in found)

    def since(nanoseconds: str) -> float:
        return (int(nanoseconds) - zero) / 1e9

    return [
        Bar(
            id=span["spanId"],
            parent=span.get("parentSpanId", ""),
            name=span["name"],
            service=service,
            began=since(span["startTimeUnixNano"]),
            ended=since(span["endTimeUnixNano"]),
            has_failed=span.get("status", {}).get("code") in (ERROR, "STATUS_CODE_ERROR"),
            outcome=str(_attributes(span).get("outbox.outcome", "")),
            events=tuple(
                (event["name"], since(event["timeUnixNano"]))
                for event in span.get("events", ())
                if event["name"] != "exception"
            ),
        )
        for span, service in found
    ]


def _attributes(owner: Mapping[str, Any]) -> dict[str, Any]:
    return {each["key"]: next(iter(each["value"].values())) for each in owner.get("attributes", ())}


def in_order(bars: Sequence[Bar]) -> Iterator[tuple[int, Bar]]:
    """Yield each span with its depth, before its children, which are in the order in which they began."""
    children: dict[str, list[Bar]] = {}
    known = {bar.id for bar in bars}
    for bar in sorted(bars, key=lambda bar: bar.began):
        children.setdefault(bar.parent if bar.parent in known else "", []).append(bar)

    def below(parent: str, depth: int) -> Iterator[tuple[int, Bar]]:
        for bar in children.get(parent, ()):
            yield depth, bar
            yield from below(bar.id, depth + 1)

    return below("", 0)


def draw(bars: Sequence[Bar], *, title: str) -> str:
    """Return the picture: a row for each span, failed ones in another colour, with their events as points."""
    rows = list(in_order(bars))
    whole = max(bar.ended for bar in bars) or 1.0
    canvas = Canvas(WIDTH, TOP + ROW * len(rows) + 40, title=title, description=describe(rows))
    canvas.text((24, 32), title, kind="title")
    canvas.text((24, 54), "Seconds since the request. A point is an event of the span.", kind="soft")

    def across(seconds: float) -> float:
        return LEFT + (WIDTH - LEFT - 190 - RIGHT) * seconds / whole

    bottom = TOP + ROW * len(rows)
    for number in range(5):
        at = whole * number / 4
        canvas.line((across(at), TOP - 14), (across(at), bottom), kind="rule")
        canvas.text((across(at), bottom + 20), f"{at:.1f} s", kind="soft", anchor="middle")
    for number, (depth, bar) in enumerate(rows):
        _row(canvas, bar, depth, TOP + ROW * number, across)
    return canvas.document()


def _row(canvas: Canvas, bar: Bar, depth: int, y: float, across: Any) -> None:
    kind = "b" if bar.has_failed else "a"
    canvas.text((24 + 16 * depth, y + 5), bar.name)
    end = max(across(bar.ended), across(bar.began) + 3)
    canvas.bar((across(bar.began), y - 6), (end, y + 6), kind=kind, tip=_told(bar))
    for name, at in bar.events:
        canvas.circle((across(at), y), 3, kind="point hollow " + kind, tip=name)
    words = f"{bar.ended - bar.began:.2f} s {'failed' if bar.has_failed and not bar.outcome else bar.outcome}"
    canvas.text((end + 8, y + 5), words.strip(), kind="label b" if bar.has_failed else "soft")


def _told(bar: Bar) -> str:
    return f"{bar.service}: {bar.name}, {bar.ended - bar.began:.3f} s {bar.outcome}".strip()


def describe(rows: Sequence[tuple[int, Bar]]) -> str:
    """Return the picture in words, for readers who do not see it."""
    return " ".join(
        f"{bar.name} from {bar.began:.2f} to {bar.ended:.2f} s{', failed' if bar.has_failed else ''}."
        for _, bar in rows
    )


if __name__ == "__main__":
    sys.stdout.write(draw(read(json.loads(Path(sys.argv[1]).read_text())), title=" ".join(sys.argv[2:])))
