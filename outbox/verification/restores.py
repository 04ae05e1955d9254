"""
Detects and records restores of the database: a backup was restored, or a standby took over.

The data contains the identity of the server, the timeline, the database and the table in which it was written.
If the identity differs from the current one, the data was copied. If the server's files were restored in place,
the identity is the same, so after every start of the server an external witness is asked for the last known WAL
position. Apps decide what a restore means for them (`registry.on_restore`, `newest`).
"""

from __future__ import annotations

import datetime as dt
import json
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from django.db import DEFAULT_DB_ALIAS, ProgrammingError, connection, transaction
from django.db.backends.signals import connection_created
from django.db.models import Q, QuerySet

from outbox import crash_points, registry, telemetry
from outbox.database import clock
from outbox.models import DatabaseIdentity, Restore, Verification

BRIEF = dt.timedelta(minutes=10)
"""The longest lag of a standby. A new timeline that lost more than this was a point-in-time recovery."""

UNDEFINED_TABLE = "42P01"
"""SQLSTATE of a table that does not exist yet."""


class Place(NamedTuple):
    """Where the data is now, and the flushed WAL position of that server."""

    system: str
    timeline: str
    database: str
    table: str
    started_at: str
    written: int

    @property
    def names(self) -> dict[str, str]:
        """The identity: it changes when the data is copied, and never otherwise."""
        return {name: getattr(self, name) for name in ("system", "timeline", "database", "table")}


class Witness(Protocol):
    """Stores a text about the database outside of the database."""

    def recall(self) -> str:
        """Return the stored text; empty if there is none or the witness does not answer."""
        ...

    def remember(self, state: str) -> None:
        """Replace the stored text."""
        ...


_sessions: weakref.WeakSet[Any] = weakref.WeakSet()
_witnesses: list[Callable[[], Witness | None]] = []


def use_witness(make: Callable[[], Witness | None]) -> None:
    """Use this witness from now on; `make` returns None if there is none."""
    _witnesses[:] = [make]


def connect() -> None:
    """Check every new connection of this process before it is used."""
    connection_created.connect(_check_session, dispatch_uid="outbox.verification.restores")


def _check_session(sender: object, **opened: Any) -> None:
    session = opened["connection"].connection
    if opened["connection"].alias != DEFAULT_DB_ALIAS or session in _sessions:
        return
    _sessions.add(session)
    try:
        check()
    except ProgrammingError as error:
        if getattr(error.__cause__, "sqlstate", None) != UNDEFINED_TABLE:
            raise


def check() -> Restore | None:
    """Compare the recorded identity with the current one; return the restore if this call has detected one."""
    found = _read()
    if found is None:
        return None
    place, noted, started_at = found
    if noted == place.names and started_at == place.started_at:
        return None
    return _identify()


def watch() -> Restore | None:
    """Check again, and store the WAL position at the witness. Called periodically."""
    restore = check()
    found = _read()
    witness = _witness()
    if found and witness and restore is None:
        place = found[0]
        if ahead := _ahead(witness.recall(), place):
            with transaction.atomic():
                restore = _note(ahead)
        witness.remember(json.dumps({**place.names, "written": place.written}))
    return restore


def declare(data_until: dt.datetime, *, by: str) -> Restore:
    """
    Record that the database was restored to its state at `data_until`. Repeated calls record it once.

    If the restore was already detected, with a later end of its data, the record is corrected.
    """
    with transaction.atomic():
        known = Restore.objects.select_for_update().filter(noted_at__gte=data_until).order_by("-pk").first()
        if known is None:
            return _note("declared", data_until=data_until, by=by)
        if known.is_failover or known.data_until is None or known.data_until > data_until:
            known.data_until, known.is_failover = data_until, False
            known.save(update_fields=["data_until", "is_failover"])
            registry.restored(known)
        return known


def newest() -> Restore | None:
    """Return the restore that was recorded last."""
    return Restore.objects.order_by("-noted_at").first()


def comparisons(restore: Restore) -> QuerySet[Verification]:
    """Return the passed verifications that compared everything the restore may have lost with the providers."""
    since_then = Q(since=None)
    if restore.data_until is not None:
        since_then |= Q(since__lte=restore.data_until)
    return Verification.objects.filter(since_then, providers=True, passed=True, ran_at__gt=restore.noted_at)


def _identify() -> Restore | None:
    witness = _witness()
    recalled = witness.recall() if witness else ""
    with transaction.atomic():
        restore = _record_place(recalled)
    crash_points.reached("database.identified")
    return restore


def _record_place(recalled: str) -> Restore | None:
    """
    Record where the data is. The lock makes sure that only one of many connections does so.

    `recalled` is the text of the witness.
    """
    DatabaseIdentity.objects.bulk_create([DatabaseIdentity(pk=1)], ignore_conflicts=True)
    identity = DatabaseIdentity.objects.select_for_update().get(pk=1)
    found = _read()
    assert found is not None
    place, noted, started_at = found
    if noted == place.names and started_at == place.started_at:
        return None
    DatabaseIdentity.objects.filter(pk=1).update(names=place.names, started_at=place.started_at)
    if identity.names and identity.names != place.names:
        return _note(
            f"the data was written elsewhere: {_differences(identity.names, place.names)}",
            is_new_timeline={**identity.names, "timeline": place.timeline} == place.names,
        )
    ahead = _ahead(recalled, place) if identity.names else ""
    return _note(ahead) if ahead else None


def _differences(before: dict[str, str], now: dict[str, str]) -> str:
    return ", ".join(
        f"{name} {before.get(name)} → {now[name]}" for name in now if before.get(name) != now[name]
    )


def _ahead(recalled: str, place: Place) -> str:
    """How the witness contradicts the database; empty if it does not."""
    known = json.loads(recalled) if recalled else {}
    if {name: known.get(name) for name in place.names} != place.names or known["written"] <= place.written:
        return ""
    return f"the server had written up to {known['written']}, now up to {place.written}"


def _note(
    evidence: str, *, data_until: dt.datetime | None = None, by: str = "", is_new_timeline: bool = False
) -> Restore:
    noted_at, data_until = clock.now(), data_until or _newest_data()
    restore = Restore.objects.create(
        noted_at=noted_at,
        data_until=data_until,
        is_failover=is_new_timeline and data_until is not None and noted_at - data_until < BRIEF,
        evidence=evidence,
        noted_by=by or "system",
    )
    registry.restored(restore)
    transaction.on_commit(
        lambda: telemetry.emit(
            "database.restored", evidence=evidence, data_until=str(restore.data_until), by=restore.noted_by
        )
    )
    return restore


def _newest_data() -> dt.datetime | None:
    """The time of the newest message; message ids are in the order of their times."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT created_at FROM outbox_outboxmessage ORDER BY id DESC LIMIT 1")
        row = cursor.fetchone()
    return row[0] if row else None


def _read() -> tuple[Place, dict[str, str] | None, str] | None:
    """The current place of the data and the recorded identity; None on a standby."""
    with connection.cursor() as cursor:
        cursor.execute(READ)
        row = cursor.fetchone()
    if row is None:
        return None
    *place, noted, started_at = row
    return Place(*place), json.loads(noted) if noted else None, started_at


def _witness() -> Witness | None:
    return _witnesses[0]() if _witnesses else None


READ = f"""
SELECT (SELECT system_identifier::text FROM pg_control_system()),
    left(pg_walfile_name(pg_current_wal_lsn()), 8),
    (SELECT oid::text FROM pg_database WHERE datname = current_database()),
    '{DatabaseIdentity._meta.db_table}'::regclass::oid::text,
    pg_postmaster_start_time()::text,
    (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint,
    noted.names::text, coalesce(noted.started_at, '')
FROM (SELECT WHERE NOT pg_is_in_recovery()) AS writable
LEFT JOIN {DatabaseIdentity._meta.db_table} AS noted ON noted.id = 1
"""  # noqa: S608 - our own table
