"""
UUIDv7 ids, which contain their creation time (RFC 9562, section 5.7), and conversions between id and time.

The first 48 bits are milliseconds since 1970. Only this module reads the time in an id.
"""

from __future__ import annotations

import datetime as dt
import uuid

import uuid6

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
MILLISECOND = dt.timedelta(milliseconds=1)
BITS_BELOW_THE_TIME = 80


def new() -> uuid.UUID:
    """Return a new id, greater than all ids that this process made before."""
    return uuid.UUID(int=uuid6.uuid7().int)


def first_at(moment: dt.datetime) -> uuid.UUID:
    """Return the lowest possible id of the millisecond of `moment`."""
    return uuid.UUID(int=(moment - EPOCH) // MILLISECOND << BITS_BELOW_THE_TIME)


def moment_of(made: uuid.UUID) -> dt.datetime:
    """Return the creation time of an id, to the millisecond."""
    return EPOCH + (made.int >> BITS_BELOW_THE_TIME) * MILLISECOND


def moment_in_sql(column: str) -> str:
    """Return an SQL expression for the creation time of the id in `column`."""
    return f"to_timestamp((('x' || left(replace({column}::text, '-', ''), 12))::bit(48)::bigint) / 1000.0)"
