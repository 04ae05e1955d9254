"""What the status strip is made of: parts, each with a word and a sign for its state."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence


class State(enum.StrEnum):
    """How a part is, from the best state to the worst. The value is its class in the style sheet."""

    GOOD = "good"
    QUIET = "quiet"
    UNKNOWN = "unknown"
    WARN = "warn"
    BAD = "bad"

    @property
    def sign(self) -> str:
        """The sign beside the word, for people who cannot see the colour."""
        return {"good": "✓", "quiet": "–", "unknown": "?", "warn": "!", "bad": "✕"}[self.value]

    @property
    def needs_attention(self) -> bool:
        """Whether the summary names a part in this state."""
        return self not in (State.GOOD, State.QUIET)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """One part of the system, and how it is. `word` can be read without the colour and without the sign."""

    slug: str
    """Unique on the page, and the same at every refresh."""
    name: str
    state: State
    word: str
    detail: str = ""
    url: str = ""
    link: str = ""
    """What is behind `url`."""
    runbook: str = ""
    """The name of the runbook for when it is not well."""
    runbook_url: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """Parts under one heading."""

    name: str
    parts: Sequence[Part]


def summary(groups: Sequence[Group]) -> str:
    """Return one sentence about all parts: it is read aloud when it changes, so it has no changing numbers."""
    parts = [part for group in groups for part in group.parts]
    troubled = [part for part in parts if part.state.needs_attention]
    if not parts:
        return ""
    if not troubled:
        return "Everything that could be read is as it should be."
    worst_first = sorted(troubled, key=lambda part: list(State).index(part.state), reverse=True)
    named = "; ".join(f"{part.name}: {part.word}" for part in worst_first[:5])
    more = f"; and {len(troubled) - 5} more" if len(troubled) > 5 else ""
    return f"{named}{more}."


def worst(groups: Sequence[Group]) -> State:
    """Return the worst state of all parts."""
    order = list(State)
    return max((part.state for group in groups for part in group.parts), key=order.index, default=State.GOOD)
