"""Previews of replays."""

from __future__ import annotations

import dataclasses
from collections import Counter

from outbox.models import DeadLetterQuerySet, OutboxMessage


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preview:
    """
    What a replay of a selection would do, in numbers of dead letters.

    `by_cause` counts those that would be replayed, by consumer and error class. The other open ones cannot be
    replayed: they have no message (`without_message`), or it is no longer in the outbox (`message_gone`).
    """

    by_cause: dict[tuple[str, str], int]
    without_message: int
    message_gone: int

    @property
    def replayable(self) -> int:
        """The number of dead letters that would be replayed."""
        return sum(self.by_cause.values())

    @property
    def unreadable(self) -> int:
        """The number of dead letters that cannot be replayed."""
        return self.without_message + self.message_gone

    @property
    def by_consumer(self) -> dict[str, int]:
        """The number of dead letters that would be replayed, by consumer."""
        counts: Counter[str] = Counter()
        for (consumer, _), dead_letters in self.by_cause.items():
            counts[consumer] += dead_letters
        return dict(counts)

    def why_not(self) -> list[str]:
        """Return why dead letters cannot be replayed: one phrase with a number for each reason."""
        reasons = [
            (self.without_message, "carried no message that could be read"),
            (self.message_gone, "had a message that is no longer in the outbox"),
        ]
        return [f"{dead_letters} {reason}" for dead_letters, reason in reasons if dead_letters]


def preview(dead_letters: DeadLetterQuerySet) -> Preview:
    """Count what a replay of the open `dead_letters` would deliver, without changing anything."""
    rows = list(dead_letters.open().values_list("message_id", "consumer", "error_class"))
    kept = set(
        OutboxMessage.objects.filter(pk__in=[pk for pk, _, _ in rows if pk]).values_list("pk", flat=True)
    )
    without_message = sum(message_id is None for message_id, _, _ in rows)
    causes = Counter((consumer, error) for message_id, consumer, error in rows if message_id in kept)
    return Preview(
        by_cause=dict(causes),
        without_message=without_message,
        message_gone=len(rows) - causes.total() - without_message,
    )
