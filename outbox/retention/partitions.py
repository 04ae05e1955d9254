"""
The partitions of the message table, if it has any: lists them, creates new ones in advance, and drops old ones.

`partition_outbox` partitions the table (see `partition_table`); a new installation does not have partitions.
Message ids are UUIDv7 and begin with their creation time, so a range of ids is a span of time. The default
partition takes messages that fit no other one, for example because of a wrong clock or because no prune has run
for a week.
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
"""The constraint on a table that is being partitioned: all of its ids lie below the first boundary."""

AHEAD = dt.timedelta(days=7)
"""How far ahead partitions are created. If no prune runs for longer, rows go into the default partition."""

LOCK_TIMEOUT = dt.timedelta(milliseconds=250)
"""How long writers may have to queue behind us while we wait for the lock."""

WORK_TIMEOUT = dt.timedelta(seconds=1)
"""How long one statement may take while writers wait."""

VACUUM_YIELDS_WITHIN = dt.timedelta(seconds=5)
"""An autovacuum gives way to a lock request after `deadlock_timeout`, which is one second by default."""

PATIENCE = dt.timedelta(seconds=10)
"""How long to try again. Between two tries writers are not blocked."""

PAUSE = 0.2
"""Seconds between two tries."""

WITHDRAWN_BEFORE = dt.timedelta(hours=12)
"""How long before its boundary an unfinished partitioning is undone. Beyond the boundary, its constraint would
refuse new messages."""

GIVES_WAY = frozenset({"55P03", "57014", "40P01"})
"""SQLSTATEs after which to try again: lock not available, statement timeout, deadlock."""

_BOUNDS = re.compile(r"FROM \((?:MINVALUE|'([0-9a-f-]{36})')\) TO \('([0-9a-f-]{36})'\)")


class Busy(Exception):
    """The table was in use for too long. Nothing was changed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Partition:
    """One partition: its table, and the time span of its messages. `begins_at` is None for the first one."""

    name: str
    begins_at: dt.datetime | None
    ends_at: dt.datetime

    @property
    def rows(self) -> Q:
        """A condition for its messages that lets the database skip the other partitions."""
        return ids_between(self.begins_at, self.ends_at)


def ids_between(begins_at: dt.datetime | None, ends_at: dt.datetime) -> Q:
    """Return a condition for the messages that were created in a time span."""
    below = Q(pk__lt=uuid7.first_at(ends_at))
    return below & Q(pk__gte=uuid7.first_at(begins_at)) if begins_at else below


def is_partitioned() -> bool:
    """Return whether the message table is partitioned."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT relkind = 'p' FROM pg_class WHERE oid = %s::regclass", [TABLE])
        return bool(cursor.fetchone()[0])


def partitions() -> list[Partition]:
    """Return all partitions except the default one, oldest first; none if the table is not partitioned."""
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
    """Return a condition for all messages outside some partitions. Adjacent partitions form one range."""
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
    Create the partitions of the coming days, with the length of the newest one; return the new names.

    A span stays in the default partition if that already holds messages of it.

    Raises:
        Busy: if the table was in use all the time. Partitions created before stay.
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
    """Return the description of a partition, which need not exist yet."""
    return Partition(name=f"{TABLE}_{begins_at:%Y%m%d}", begins_at=begins_at, ends_at=ends_at)


def create(cursor: Any, partition: Partition) -> bool:
    """Create a partition in the open transaction; return False if the default one holds such messages."""
    assert partition.begins_at is not None
    low, high = uuid7.first_at(partition.begins_at), uuid7.first_at(partition.ends_at)
    # Attaching locks the default partition as well, but only after the check, which could be outdated by then.
    cursor.execute(f"LOCK TABLE {DEFAULT} IN ACCESS EXCLUSIVE MODE")
    cursor.execute(f"SELECT EXISTS (SELECT FROM {DEFAULT} WHERE id >= %s AND id < %s)", [low, high])  # noqa: S608
    if cursor.fetchone()[0]:
        return False
    # CREATE TABLE … PARTITION OF would lock the whole table exclusively.
    cursor.execute(f"CREATE TABLE {partition.name} (LIKE {TABLE} INCLUDING ALL)")
    cursor.execute(
        f"ALTER TABLE {TABLE} ATTACH PARTITION {partition.name} FOR VALUES FROM ('{low}') TO ('{high}')"
    )
    return True


def drop(
    partition: Partition, *, stay: Callable[[], Collection[uuid.UUID]], patience: dt.timedelta = PATIENCE
) -> None:
    """
    Drop a partition and its messages. Messages whose ids `stay` returns move into the default partition.

    `stay` is called while writers are locked out, so it must be quick. If it raises, nothing is changed.

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
    """Return the boundary of an unfinished partitioning, or None."""
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
    Undo an unfinished partitioning.

    Raises:
        Busy: if the table was in use all the time.
    """
    briefly(
        lambda cursor: cursor.execute(f"ALTER TABLE {TABLE} DROP CONSTRAINT IF EXISTS {BOUND}"),
        patience=patience,
    )


def maintain(*, now: dt.datetime, patience: dt.timedelta = PATIENCE) -> None:
    """
    Create partitions in advance, or undo an unfinished partitioning in time. Call it regularly.

    Raises:
        Busy: if the table was in use all the time.
    """
    if is_partitioned():
        create_ahead(now=now, patience=patience)
    elif (boundary := bound()) and boundary - now < WITHDRAWN_BEFORE:
        withdraw_bound(patience=patience)


def briefly(work: Callable[[Any], T], *, patience: dt.timedelta) -> T:
    """
    Run `work` in a transaction that blocks others only briefly; try again until `patience` ends.

    First, a lock that allows writes makes a vacuum give way and prevents others from changing partitions.

    Raises:
        Busy: if no try succeeded. The last try was rolled back.
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
