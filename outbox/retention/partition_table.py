"""
Partitions the message table by time while it is in use, and undoes that.

The existing table becomes the first partition without copying any row. A constraint states that its ids lie
below a boundary; it is validated while others write, and it saves the scan when the names are swapped. Each
step can be repeated, because the catalog shows what was done already.
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
"""How far ahead the first boundary lies at least. By then the work is finished or undone."""

FIRST = f"{TABLE}_first"
"""The name of the existing table as the first partition."""

MOST_COPIED = 10_000
"""Maximum number of rows outside the largest partition that are copied, under a lock, to undo the
partitioning."""

MONDAY = dt.datetime(1970, 1, 5, tzinfo=dt.UTC)

OBSTACLES = {
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
"""Objects that would still reference the old table after the swap, or would have to be built during it."""


class Span(enum.Enum):
    """The time span of one partition."""

    DAILY = dt.timedelta(days=1)
    WEEKLY = dt.timedelta(days=7)

    def boundary_after(self, moment: dt.datetime) -> dt.datetime:
        """Return the first midnight, or midnight of a Monday, at or after a time, in UTC."""
        whole, rest = divmod(moment - MONDAY, self.value)
        return MONDAY + (whole + bool(rest)) * self.value


class CannotDivide(Exception):
    """The table cannot be partitioned, or that cannot be undone, for the stated reason. Nothing was changed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Described:
    """The properties of a table, besides its columns, that must be the same before and after."""

    indexes: list[tuple[str, str]]
    """Names, and the statements that make them."""
    triggers: list[str]
    grants: list[str]


def divide(*, span: Span, now: dt.datetime, patience: dt.timedelta) -> list[str]:
    """
    Partition the message table, or continue an interrupted try; return the names of all partitions.

    Writers wait briefly, none longer than `partitions.LOCK_TIMEOUT` and the swap itself.

    Raises:
        CannotDivide: if there is an obstacle.
        outbox.retention.partitions.Busy: if the table was in use all the time. Run it again: finished steps are
            kept, and the hourly prune undoes them before they can do harm.
    """
    if not partitions.is_partitioned():
        check_obstacles(boundary=plan(span=span, now=now))
        boundary = _bind(span=span, now=now, patience=patience)
        _validate()
        partitions.briefly(lambda cursor: _swap(cursor, boundary, span), patience=patience)
    partitions.create_ahead(now=now, patience=patience)
    return [partition.name for partition in partitions.partitions()]


def plan(*, span: Span, now: dt.datetime) -> dt.datetime:
    """Return the end of the first partition: that of the last try, if it is not too close."""
    begun = partitions.bound()
    if begun and begun - now >= MARGIN / 2 and span.boundary_after(begun) == begun:
        return begun
    return span.boundary_after(now + MARGIN)


def check_obstacles(*, boundary: dt.datetime | None = None) -> None:
    """
    Check for objects that the swap of the tables would break, and for ids at or above the boundary.

    Raises:
        CannotDivide: if there are any.
    """
    with connection.cursor() as cursor:
        for what, statement in OBSTACLES.items():
            cursor.execute(statement, [TABLE])
            if found := [name for (name,) in cursor.fetchall()]:
                raise CannotDivide(f"{what} uses the table: {', '.join(found)}")
        if boundary is None:
            return
        cursor.execute(f"SELECT count(*) FROM {TABLE} WHERE id >= %s", [uuid7.first_at(boundary)])  # noqa: S608
        if beyond := cursor.fetchone()[0]:
            raise CannotDivide(
                f"{counted(beyond, 'message')} with an id that is not a UUIDv7 from before {boundary}"
            )


def undo(*, patience: dt.timedelta) -> None:
    """
    Undo the partitioning: the largest partition becomes the table, and the others' messages are copied into it.

    Raises:
        CannotDivide: if more than `MOST_COPIED` messages would have to be copied.
        outbox.retention.partitions.Busy: if the table was in use all the time.
    """
    if partitions.is_partitioned():
        check_obstacles()
        partitions.briefly(_join, patience=patience)
    else:
        partitions.withdraw_bound(patience=patience)


def _bind(*, span: Span, now: dt.datetime, patience: dt.timedelta) -> dt.datetime:
    """Make the table refuse ids at or above the boundary. Existing ids are not checked yet."""
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
    """Check all existing ids, while others read and write."""
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
    # The first partition of the chosen length; later ones use the same length.
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
            f"at least {MOST_COPIED} messages would have to be copied while all writers wait; prune first, or "
            "leave the table as it is"
        )


def _move_triggers(cursor: Any, described: _Described, *, away_from: str = "") -> None:
    """Create the triggers and grants on the table that has the name now."""
    if away_from:
        for name in _triggers(cursor, away_from):
            cursor.execute(f"DROP TRIGGER {name} ON {away_from}")
    for statement in (*described.triggers, *described.grants):
        cursor.execute(statement)


def _triggers(cursor: Any, table: str) -> Iterator[str]:
    cursor.execute("SELECT tgname FROM pg_trigger WHERE tgrelid = %s::regclass AND NOT tgisinternal", [table])
    return (name for (name,) in cursor.fetchall())


def _describe(cursor: Any) -> _Described:
    """Statements that recreate the properties for the table that has the name when they run."""
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
