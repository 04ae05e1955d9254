"""
Ends a delivery in the statement that records the last effect of its workflow.

`ConsumerTask` deletes a delivery after the last task of its workflow. A task that records its effect in one
statement may add that deletion to it, which saves a transaction. It reports the deletion when it is committed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from outbox.models import Delivery
from outbox.relay.deliveries import Copy


class Ending:
    """The end of one delivery. `copy` is None if the delivery does not end with the current task."""

    def __init__(self, copy: Copy | None) -> None:
        self.copy = copy
        self.is_recorded = False


_current: ContextVar[Ending | None] = ContextVar("outbox_ending", default=None)


@contextlib.contextmanager
def of(copy: Copy | None) -> Iterator[Ending]:
    """Let the work inside the block end the delivery of `copy`."""
    ending = Ending(copy)
    token = _current.set(ending)
    try:
        yield ending
    finally:
        _current.reset(token)


def statement(effect: str) -> tuple[str, dict[str, Any]]:
    """
    Return the deletion of the current delivery and its values, as a part of a larger statement.

    It deletes nothing unless `effect`, a part of the same statement, has a row.
    """
    ending = _current.get()
    copy = ending.copy if ending else None
    values = {
        "ended_message_id": copy and copy.message_id,
        "ended_workflow": copy and copy.workflow,
        "ended_generation": copy and copy.generation,
    }
    return f"{DELETE} AND EXISTS (SELECT FROM {effect})", values


def recorded() -> None:
    """Report that the deletion is committed, so that `ConsumerTask` need not delete the delivery."""
    ending = _current.get()
    if ending and ending.copy:
        ending.is_recorded = True


DELETE = f"""
DELETE FROM {Delivery._meta.db_table}
WHERE message_id = %(ended_message_id)s AND workflow = %(ended_workflow)s AND generation = %(ended_generation)s
"""  # noqa: S608 - our own table
