"""
Dividing the message table by time while everybody goes on writing, and putting it together again.

The table that is there becomes the first partition as it is: a constraint says that its ids lie below a
boundary, is validated while others write, and spares the scan when names are swapped. No row is copied.
Each step can be repeated: what was done already is found in the catalog.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
from collections.abc import Iterator
from typing import Any

from django.db import connection, transaction

from outbox.command_lines import counted
from outbox.database import uuid7
from outbox.retention import partitions
from outbox.retention.partitions import BOUND, DEFAULT, TABLE

MARGIN = dt.timedelta(days=2)
"""How far ahead the first boundary lies at least. Until then everything has to be done, or is taken back."""

FIRST = f"{TABLE}_first"
"""What the table is called once it is the first partition."""

MOST_COPIED = 10_000
"""Rows outside the largest partition with which the table can be put together again while everybody waits."""

MONDAY = dt.datetime(1970, 1, 5, tzinfo=dt.UTC)

IN_THE_WAY = {
    "a foreign key": """
        SELECT conrelid::regclass::text FROM pg_constraint WHERE contype = 'f' AND confrelid = %s::regclass
    """,
    "a view": """
        SELECT DISTINCT ev_class::regclass::text FROM pg_depend JOIN pg_rewrite ON pg_rewrite.oid = objid
        WHERE classid = 'pg_rewrite'::regclass AND refobjid = %s::regclass
    """,
    "a publication": """
        SELECT pubname FROM pg_publication_rel JOIN pg_publication ON pg_publication.oid = prpubid
        WHERE prrelid = %s::regclass
    """,
    "an index that is not valid": """
        SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid AND indrelid = %s::regclass
    """,
}
"""What would go on naming the old table after the swap, or would have to be built during it."""


class Span(enum.Enum):
    """How long one partition is."""

    DAILY = dt.timedelta(days=1)
    WEEKLY = dt.timedelta(days=7)

    def boundary_after(self, moment: dt.datetime) -> dt.datetime:
        """The first midnight, or Monday's midnight, at or after a moment; in UTC."""
        whole, rest = divmod(moment - MONDAY, self.value)
        return MONDAY + (whole + bool(rest)) * self.value


class CannotDivide(Exception):
    """The table cannot be divided as it is, or not be put together; the message says why. Nothing changed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Described:
    """What has to be the same before and after: everything about a table that is not its columns."""

    indexes: list[tuple[str, str]]
    """Names, and the statements that make them."""
    triggers: list[str]
    grants: list[str]


def divide(*, span: Span, now: dt.datetime, patience: dt.timedelta) -> list[str]:
    """
    Divide the message table, or go on where the last try ended; return the names of all partitions.

    Writers wait for a few moments, none longer than `partitions.LOCK_TIMEOUT` and the swap itself.

    Raises:
        CannotDivide: if something stands in the way.
        outbox.retention.partitions.Busy: if the table was in use all the time. Run it again: what is done
        stays, and
            is taken back by the hourly prune before it can do harm.
    """
    if not partitions.is_partitioned():
        look_for_obstacles(boundary=plan(span=span, now=now))
        boundary = _bind(span=span, now=now, patience=patience)
        _validate()
        partitions.briefly(lambda cursor: _swap(cursor, boundary, span), patience=patience)
    partitions.create_ahead(now=now, patience=patience)
    return [partition.name for partition in partitions.partitions()]


def plan(*, span: Span, now: dt.datetime) -> dt.datetime:
    """The boundary at which the first partition ends: that of the last try, if it is not too near."""
    begun = partitions.bound()
    if begun and begun - now >= MARGIN / 2 and span.boundary_after(begun) == begun:
        return begun
    return span.boundary_after(now + MARGIN)


def look_for_obstacles(*, boundary: dt.datetime | None = None) -> None:
    """
    Look for what a swap of tables would break, and for ids that do not lie below a boundary.

    Raises:
        CannotDivide: naming it.
    """
    with connection.cursor() as cursor:
        for what, statement in IN_THE_WAY.items():
            cursor.execute(statement, [TABLE])
            if found := [name for (name,) in cursor.fetchall()]:
                raise CannotDivide(f"{what} is in the way: {', '.join(found)}")
        if boundary is None:
            return
        cursor.execute(f"SELECT count(*) FROM {TABLE} WHERE id >= %s", [uuid7.first_at(boundary)])  # noqa: S608
        if beyond := cursor.fetchone()[0]:
            raise CannotDivide(
                f"{counted(beyond, 'message')} without an id that is a UUIDv7 of a time before {boundary}"
            )


def undo(*, patience: dt.timedelta) -> None:
    """
    Put the table together again: the largest partition becomes the table, and takes in the others' messages.

    Raises:
        CannotDivide: if that would be more than `MOST_COPIED` messages.
        outbox.retention.partitions.Busy: if the table was in use all the time.
    """
    if partitions.is_partitioned():
        look_for_obstacles()
        partitions.briefly(_join, patience=patience)
    else:
        partitions.withdraw_bound(patience=patience)


def _bind(*, span: Span, now: dt.datetime, patience: dt.timedelta) -> dt.datetime:
    """Let the table refuse ids at and beyond the boundary; those that are there are not looked at yet."""
    boundary = plan(span=span, now=now)
    if partitions.bound() != boundary:
        partitions.withdraw_bound(patience=patience)
        check = f"CHECK (id < '{uuid7.first_at(boundary)}') NOT VALID"
        partitions.briefly(
            lambda cursor: cursor.execute(f"ALTER TABLE {TABLE} ADD CONSTRAINT {BOUND} {check}"),
            patience=patience,
        )
    return boundary


def _validate() -> None:
    """Look at all ids, while everybody reads and writes."""
    with transaction.atomic(durable=True), connection.cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = 0")
        cursor.execute(f"ALTER TABLE {TABLE} VALIDATE CONSTRAINT {BOUND}")


def _swap(cursor: Any, boundary: dt.datetime, span: Span) -> None:
    described = _describe(cursor)
    cursor.execute(f"LOCK TABLE {TABLE} IN ACCESS EXCLUSIVE MODE")
    cursor.execute(f"ALTER TABLE {TABLE} RENAME TO {FIRST}")
    for name, _ in described.indexes:
        cursor.execute(f"ALTER INDEX {name} RENAME TO {name}_first")
    cursor.execute(
        f"CREATE TABLE {TABLE} (LIKE {FIRST} INCLUDING ALL EXCLUDING INDEXES) PARTITION BY RANGE (id)"
    )
    cursor.execute(f"ALTER TABLE {TABLE} DROP CONSTRAINT {BOUND}")
    for _, statement in described.indexes:
        cursor.execute(statement)
    high = uuid7.first_at(boundary)
    cursor.execute(f"ALTER TABLE {TABLE} ATTACH PARTITION {FIRST} FOR VALUES FROM (MINVALUE) TO ('{high}')")
    cursor.execute(f"ALTER TABLE {FIRST} DROP CONSTRAINT {BOUND}")
    _move_triggers(cursor, described, away_from=FIRST)
    cursor.execute(f"CREATE TABLE {DEFAULT} PARTITION OF {TABLE} DEFAULT")
    # With the first span of the agreed length, which all later ones follow.
    partitions.create(cursor, partitions.between(boundary, boundary + span.value))


def _join(cursor: Any) -> None:
    cursor.execute(f"LOCK TABLE {TABLE} IN ACCESS EXCLUSIVE MODE")
    cursor.execute(
        """
        SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
        WHERE inhparent = %s::regclass ORDER BY pg_relation_size(inhrelid) DESC, relname = %s DESC
        """,
        [TABLE, FIRST],
    )
    largest, *others = [name for (name,) in cursor.fetchall()]
    _refuse_to_copy_many(cursor, others)
    described = _describe(cursor)
    cursor.execute(
        "SELECT child.relname, parent.relname FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid "
        "JOIN pg_class AS parent ON parent.oid = inhparent JOIN pg_index ON indexrelid = inhrelid "
        "WHERE indrelid = %s::regclass",
        [largest],
    )
    names = dict(cursor.fetchall())
    cursor.execute(f"ALTER TABLE {TABLE} DETACH PARTITION {largest}")
    cursor.execute(f"INSERT INTO {largest} SELECT * FROM {TABLE}")  # noqa: S608 - names from the catalog
    cursor.execute(f"DROP TABLE {TABLE}")
    cursor.execute(f"ALTER TABLE {largest} RENAME TO {TABLE}")
    for name, old in names.items():
        cursor.execute(f"ALTER INDEX {name} RENAME TO {old}")
    _move_triggers(cursor, described)


def _refuse_to_copy_many(cursor: Any, others: list[str]) -> None:
    rows = 0
    for name in others:
        cursor.execute(f"SELECT count(*) FROM (SELECT FROM {name} LIMIT {MOST_COPIED}) AS part")  # noqa: S608
        rows += cursor.fetchone()[0]
    if rows >= MOST_COPIED:
        raise CannotDivide(
            f"{MOST_COPIED} messages or more would have to be copied while everybody waits; prune first, or "
            "leave the table as it is"
        )


def _move_triggers(cursor: Any, described: _Described, *, away_from: str = "") -> None:
    """Put triggers and rights on the table that has the name now."""
    if away_from:
        for name in _triggers(cursor, away_from):
            cursor.execute(f"DROP TRIGGER {name} ON {away_from}")
    for statement in (*described.triggers, *described.grants):
        cursor.execute(statement)


def _triggers(cursor: Any, table: str) -> Iterator[str]:
    cursor.execute("SELECT tgname FROM pg_trigger WHERE tgrelid = %s::regclass AND NOT tgisinternal", [table])
    return (name for (name,) in cursor.fetchall())


def _describe(cursor: Any) -> _Described:
    """Statements that name the table, and so make the same for whichever table has its name when they run."""
    cursor.execute(
        """
        SELECT index.relname, CASE
            WHEN conname IS NULL THEN pg_get_indexdef(index.oid)
            ELSE format('ALTER TABLE %%s ADD CONSTRAINT %%I %%s', indrelid::regclass, conname,
                        pg_get_constraintdef(pg_constraint.oid)) END
        FROM pg_index JOIN pg_class AS index ON index.oid = indexrelid
        LEFT JOIN pg_constraint ON conindid = indexrelid AND contype IN ('p', 'u')
        WHERE indrelid = %s::regclass
        """,
        [TABLE],
    )
    indexes = cursor.fetchall()
    cursor.execute(
        "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = %s::regclass AND NOT tgisinternal",
        [TABLE],
    )
    triggers = [statement for (statement,) in cursor.fetchall()]
    cursor.execute(
        """
        SELECT format('GRANT %%s ON %%s TO %%s%%s', privilege_type, pg_class.oid::regclass,
                      CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE grantee::regrole::text END,
                      CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
        FROM pg_class, aclexplode(relacl) WHERE pg_class.oid = %s::regclass
        UNION ALL
        SELECT format('ALTER TABLE %%s OWNER TO %%s', oid::regclass, relowner::regrole)
        FROM pg_class WHERE oid = %s::regclass AND pg_get_userbyid(relowner) <> current_user
        """,
        [TABLE, TABLE],
    )
    return _Described(
        indexes=indexes, triggers=triggers, grants=[statement for (statement,) in cursor.fetchall()]
    )
