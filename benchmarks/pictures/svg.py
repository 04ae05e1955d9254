"""A small writer of SVG: a canvas that collects elements, with one style for light and dark schemes."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

STYLE = """
svg { --paper: #ffffff; --ink: #1f2328; --soft: #59636e; --rule: #d8dee4 }
svg { --a: #0969da; --b: #bc4c00; --c: #1a7f37 }
@media (prefers-color-scheme: dark) {
  svg { --paper: #0d1117; --ink: #f0f6fc; --soft: #9198a1; --rule: #30363d }
  svg { --a: #58a6ff; --b: #ffa657; --c: #56d364 }
}
.paper { fill: var(--paper) } .rule { stroke: var(--rule); stroke-width: 1 }
text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: var(--ink) }
.title { font-size: 16px; font-weight: 600 } .soft { fill: var(--soft) }
.a { --own: var(--a) } .b { --own: var(--b) } .c { --own: var(--c) }
.line { fill: none; stroke: var(--own); stroke-width: 2 }
.ideal { fill: none; stroke: var(--own); stroke-width: 1; stroke-dasharray: 2 4; opacity: .7 }
.point { fill: var(--own); stroke: var(--own); stroke-width: 2 } .hollow { fill: var(--paper) }
.bar { fill: var(--own) }
.label { fill: var(--own); font-weight: 600 }
"""
"""Three colours `a`, `b` and `c` with enough contrast in both schemes; lines have labels as well."""

Place = tuple[float, float]


class Canvas:
    """Collects elements in drawing order."""

    def __init__(self, width: float, height: float, *, title: str, description: str) -> None:
        self._width, self._height = width, height
        self._title, self._description = title, description
        self._parts: list[str] = []
        self._add("rect", width="100%", height="100%", rx=8, kind="paper")

    def line(self, start: Place, end: Place, *, kind: str) -> None:
        """A straight line."""
        self._add("line", x1=start[0], y1=start[1], x2=end[0], y2=end[1], kind=kind)

    def path(self, places: Sequence[Place], *, kind: str) -> None:
        """Lines from place to place."""
        self._add("polyline", points=" ".join(f"{_number(x)},{_number(y)}" for x, y in places), kind=kind)

    def circle(self, at: Place, radius: float, *, kind: str, tip: str = "") -> None:
        """A circle; the tip shows when a pointer rests on it."""
        self._add(
            "circle", cx=at[0], cy=at[1], r=radius, kind=kind, inside=tip and f"<title>{escape(tip)}</title>"
        )

    def bar(self, corner: Place, opposite: Place, *, kind: str, tip: str = "") -> None:
        """A filled rectangle; the tip shows when a pointer rests on it."""
        (x, y), (right, bottom) = corner, opposite
        inside = tip and f"<title>{escape(tip)}</title>"
        self._add("rect", x=x, y=y, width=right - x, height=bottom - y, rx=2, kind=f"bar {kind}", inside=inside)

    def text(self, at: Place, words: str, *, kind: str = "", anchor: str = "start") -> None:
        """A line of text; `anchor` is its start, middle or end."""
        self._add("text", x=at[0], y=at[1], text_anchor=anchor, kind=kind, inside=escape(words))

    def document(self) -> str:
        """Return the whole file."""
        size = f'viewBox="0 0 {_number(self._width)} {_number(self._height)}" width="{_number(self._width)}"'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title description">'
        named = (
            f'<title id="title">{escape(self._title)}</title>'
            f'<desc id="description">{escape(self._description)}</desc>'
        )
        return "\n".join([head, named, f"<style>{STYLE}</style>", *self._parts, "</svg>", ""])

    def _add(self, name: str, *, kind: str = "", inside: str = "", **attributes: float | str) -> None:
        known = {"class": kind} if kind else {}
        written = "".join(
            f" {key.replace('_', '-')}={quoteattr(value if isinstance(value, str) else _number(value))}"
            for key, value in {**attributes, **known}.items()
        )
        self._parts.append(f"<{name}{written}>{inside}</{name}>" if inside else f"<{name}{written}/>")


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
