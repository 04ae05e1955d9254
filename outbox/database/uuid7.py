"""
Ids that carry the time they were made at: UUIDv7 (RFC 9562, section 5.7), and the way from one to the other.

The first 48 bits are milliseconds since 1970. Nowhere else is an id taken apart.
"""

from __future__ import annotations

import datetime as dt
import uuid

import uuid6

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
MILLISECOND = dt.timedelta(milliseconds=1)
BITS_BELOW_THE_TIME = 80


def new() -> uuid.UUID:
    """An id of now, above all that this process made before it."""
    return uuid.UUID(int=uuid6.uuid7().int)


def first_at(moment: dt.datetime) -> uuid.UUID:
    """The lowest id that can be made in the millisecond of `moment`."""
    return uuid.UUID(int=(moment - EPOCH) // MILLISECOND << BITS_BELOW_THE_TIME)


def moment_of(made: uuid.UUID) -> dt.datetime:
    """When the id was made, to the millisecond."""
    return EPOCH + (made.int >> BITS_BELOW_THE_TIME) * MILLISECOND


def moment_in_sql(column: str) -> str:
    """SQL for when the id in `column` was made."""
    return f"to_timestamp((('x' || left(replace({column}::text, '-', ''), 12))::bit(48)::bigint) / 1000.0)"
