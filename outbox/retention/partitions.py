"""
The partitions of the message table, where it has any: which there are, those of the days to come, dropping one.

`partition_outbox` divides the table (see `partition_table`); a new installation has it in one piece. Message
ids are UUIDv7 and begin with the time of their making, so a range of ids is a span of time. What no partition
takes goes into the default one: a clock that is wrong, or a prune that has not run for a week, refuses nobody.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
import time
import uuid
from collections.abc import Callable, Collection
from typing import Any, TypeVar

from django.db import OperationalError, connection, transaction
from django.db.models import Q

from outbox.database import uuid7
from outbox.models import OutboxMessage

T = TypeVar("T")

TABLE = OutboxMessage._meta.db_table
DEFAULT = f"{TABLE}_default"
BOUND = "outbox_partition_bound"
"""The constraint on a table that is about to be divided: all of its ids lie below the first boundary."""

AHEAD = dt.timedelta(days=7)
"""How far ahead partitions are made: so long may nothing prune before rows go into the default one."""

LOCK_TIMEOUT = dt.timedelta(milliseconds=250)
"""How long writers may have to queue behind us while we wait for those at work."""

WORK_TIMEOUT = dt.timedelta(seconds=1)
"""How long one statement may take while writers wait."""

VACUUM_YIELDS_WITHIN = dt.timedelta(seconds=5)
"""A vacuum gives way to somebody who has waited for `deadlock_timeout`, one second unless configured."""

PATIENCE = dt.timedelta(seconds=10)
"""How long to try again; between tries writers have the table for themselves."""

PAUSE = 0.2
"""Seconds between two tries."""

WITHDRAWN_BEFORE = dt.timedelta(hours=12)
"""How long before its boundary a division that was begun and not finished is taken back: beyond the boundary
its constraint would refuse new messages."""

GIVES_WAY = frozenset({"55P03", "57014", "40P01"})
"""SQLSTATEs: the lock was not to be had, the statement took too long, a deadlock."""

_BOUNDS = re.compile(r"FROM \((?:MINVALUE|'([0-9a-f-]{36})')\) TO \('([0-9a-f-]{36})'\)")


class Busy(Exception):
    """Others held the table for longer than anybody may be made to wait; nothing was changed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Partition:
    """One partition: its table, and the span of time whose messages it holds. None: since ever."""

    name: str
    begins_at: dt.datetime | None
    ends_at: dt.datetime

    @property
    def rows(self) -> Q:
        """Its messages, as a condition on the whole table by which the database leaves out the others."""
        return ids_between(self.begins_at, self.ends_at)


def ids_between(begins_at: dt.datetime | None, ends_at: dt.datetime) -> Q:
    """The messages that were made in a span of time."""
    below = Q(pk__lt=uuid7.first_at(ends_at))
    return below & Q(pk__gte=uuid7.first_at(begins_at)) if begins_at else below


def is_partitioned() -> bool:
    """Whether the message table is divided."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT relkind = 'p' FROM pg_class WHERE oid = %s::regclass", [TABLE])
        return bool(cursor.fetchone()[0])


def partitions() -> list[Partition]:
    """All partitions but the default one, oldest first; none when the table is in one piece."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT child.relname, pg_get_expr(child.relpartbound, child.oid)
            FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid
            WHERE inhparent = %s::regclass
            """,
            [TABLE],
        )
        found = [(name, _BOUNDS.search(bounds)) for name, bounds in cursor.fetchall()]
    return sorted(
        (
            Partition(
                name=name,
                begins_at=uuid7.moment_of(uuid.UUID(bounds[1])) if bounds[1] else None,
                ends_at=uuid7.moment_of(uuid.UUID(bounds[2])),
            )
            for name, bounds in found
            if bounds
        ),
        key=lambda partition: partition.ends_at,
    )


def without(left_out: Collection[Partition]) -> Q:
    """All messages but those of some partitions; adjacent ones are left out as one range."""
    ranges: list[tuple[dt.datetime | None, dt.datetime]] = []
    for partition in sorted(left_out, key=lambda partition: partition.ends_at):
        if ranges and ranges[-1][1] == partition.begins_at:
            ranges[-1] = (ranges[-1][0], partition.ends_at)
        else:
            ranges.append((partition.begins_at, partition.ends_at))
    others = Q()
    for begins_at, ends_at in ranges:
        beyond = Q(pk__gte=uuid7.first_at(ends_at))
        others &= beyond | Q(pk__lt=uuid7.first_at(begins_at)) if begins_at else beyond
    return others


def create_ahead(*, now: dt.datetime, patience: dt.timedelta = PATIENCE) -> list[str]:
    """
    Make the partitions of the days to come, as long as the newest one each; return the names of the new ones.

    A span of which the default partition holds messages already stays with the default partition.

    Raises:
        Busy: if the table was in use all the time. Those made before stay.
    """
    known = partitions()
    if not known or known[-1].begins_at is None:
        return []
    begins_at, span = known[-1].ends_at, known[-1].ends_at - known[-1].begins_at
    while begins_at + span <= now:
        begins_at += span
    made = []
    while begins_at < now + AHEAD:
        partition = between(begins_at, begins_at + span)
        if briefly(lambda cursor, new=partition: create(cursor, new), patience=patience):  # type: ignore[misc]
            made.append(partition.name)
        begins_at += span
    return made


def between(begins_at: dt.datetime, ends_at: dt.datetime) -> Partition:
    """A partition that need not exist yet."""
    return Partition(name=f"{TABLE}_{begins_at:%Y%m%d}", begins_at=begins_at, ends_at=ends_at)


def create(cursor: Any, partition: Partition) -> bool:
    """Make a partition in the open transaction; False when the default one holds messages of its span."""
    assert partition.begins_at is not None
    low, high = uuid7.first_at(partition.begins_at), uuid7.first_at(partition.ends_at)
    # Attaching would lock the default partition too, after a look that others could make wrong.
    cursor.execute(f"LOCK TABLE {DEFAULT} IN ACCESS EXCLUSIVE MODE")
    cursor.execute(f"SELECT EXISTS (SELECT FROM {DEFAULT} WHERE id >= %s AND id < %s)", [low, high])  # noqa: S608
    if cursor.fetchone()[0]:
        return False
    # CREATE TABLE … PARTITION OF would keep everybody out of the whole table.
    cursor.execute(f"CREATE TABLE {partition.name} (LIKE {TABLE} INCLUDING ALL)")
    cursor.execute(
        f"ALTER TABLE {TABLE} ATTACH PARTITION {partition.name} FOR VALUES FROM ('{low}') TO ('{high}')"
    )
    return True


def drop(
    partition: Partition, *, stay: Callable[[], Collection[uuid.UUID]], patience: dt.timedelta = PATIENCE
) -> None:
    """
    Drop a partition and all of its messages but those that `stay` names, which move into the default one.

    `stay` is asked while nobody can write, so it has to be quick. What it raises leaves everything as it was.

    Raises:
        Busy: if the table was in use all the time, or `stay` was slow.
    """

    def work(cursor: Any) -> None:
        cursor.execute(f"LOCK TABLE {TABLE} IN ACCESS EXCLUSIVE MODE")
        kept = list(stay())
        cursor.execute(f"ALTER TABLE {TABLE} DETACH PARTITION {partition.name}")
        if kept:
            cursor.execute(
                f"INSERT INTO {TABLE} SELECT * FROM {partition.name} WHERE id = ANY(%s)",  # noqa: S608
                [kept],
            )
        cursor.execute(f"DROP TABLE {partition.name}")

    briefly(work, patience=patience)


def bound() -> dt.datetime | None:
    """The boundary of a division that was begun and not finished; None when there is none."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint "
            "WHERE conname = %s AND conrelid = %s::regclass",
            [BOUND, TABLE],
        )
        row = cursor.fetchone()
    found = re.search(r"'([0-9a-f-]{36})'", row[0]) if row else None
    return uuid7.moment_of(uuid.UUID(found[1])) if found else None


def withdraw_bound(*, patience: dt.timedelta = PATIENCE) -> None:
    """
    Take back a division that was begun and not finished.

    Raises:
        Busy: if the table was in use all the time.
    """
    briefly(
        lambda cursor: cursor.execute(f"ALTER TABLE {TABLE} DROP CONSTRAINT IF EXISTS {BOUND}"),
        patience=patience,
    )


def maintain(*, now: dt.datetime, patience: dt.timedelta = PATIENCE) -> None:
    """
    What has to be done from time to time: partitions ahead, or an unfinished division taken back in time.

    Raises:
        Busy: if the table was in use all the time.
    """
    if is_partitioned():
        create_ahead(now=now, patience=patience)
    elif (boundary := bound()) and boundary - now < WITHDRAWN_BEFORE:
        withdraw_bound(patience=patience)


def briefly(work: Callable[[Any], T], *, patience: dt.timedelta) -> T:
    """
    Run `work` in a transaction that keeps nobody waiting for long; try again until `patience` ends.

    A vacuum is made to give way first, under a lock that lets everybody write. Nobody else changes
    partitions meanwhile.

    Raises:
        Busy: if there was no such moment; nothing of the last try remains.
    """
    deadline = time.monotonic() + patience.total_seconds()
    while True:
        try:
            with transaction.atomic(durable=True), connection.cursor() as cursor:
                _limit(cursor, "lock_timeout", VACUUM_YIELDS_WITHIN)
                cursor.execute(f"LOCK TABLE {TABLE} IN SHARE UPDATE EXCLUSIVE MODE")
                _limit(cursor, "lock_timeout", LOCK_TIMEOUT)
                _limit(cursor, "statement_timeout", WORK_TIMEOUT)
                return work(cursor)
        except OperationalError as error:
            if getattr(error.__cause__, "sqlstate", None) not in GIVES_WAY:
                raise
            if time.monotonic() > deadline:
                raise Busy(f"{TABLE} was in use: {error}") from error
        time.sleep(PAUSE)


def _limit(cursor: Any, name: str, span: dt.timedelta) -> None:
    cursor.execute("SELECT set_config(%s, %s, true)", [name, f"{round(span / dt.timedelta(milliseconds=1))}ms"])
