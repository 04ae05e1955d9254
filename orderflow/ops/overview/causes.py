"""The causes of most open dead letters, by fingerprint."""

from __future__ import annotations

import dataclasses

from django.db import connection
from django.urls import reverse
from django.utils.http import urlencode

from orderflow.ops.overview import amounts

MOST_READ = 10_000
"""So many of the newest open dead letters are read: a flood of them does not make the page slow."""

MOST_SHOWN = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cause:
    """Open dead letters with the same fingerprint."""

    consumer: str
    error_class: str
    count: int
    share: int
    """Percent of the dead letters that were read; at least 1."""
    newest: str
    oldest: str
    url: str
    """The list of them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Causes:
    """The largest causes, and how many dead letters are open altogether."""

    causes: list[Cause]
    open: str
    others: int
    """How many more causes there are among those that were read."""
    is_limited: bool

    @property
    def most_read(self) -> str:
        """The limit in words."""
        return amounts.exact(MOST_READ)


def read() -> Causes:
    """Read the causes. One query, which reads at most `MOST_READ` dead letters."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH newest AS (
                SELECT fingerprint, consumer, error_class, buried_at FROM outbox_deadletter
                WHERE resolution = 'open' ORDER BY buried_at DESC LIMIT %(most)s
            ), causes AS (
                SELECT fingerprint, min(consumer) AS consumer, min(error_class) AS error_class,
                    count(*) AS dead_letters, min(buried_at) AS first, max(buried_at) AS last
                FROM newest GROUP BY fingerprint
            )
            SELECT fingerprint, consumer, error_class, dead_letters,
                extract(epoch FROM statement_timestamp() - first)::float8,
                extract(epoch FROM statement_timestamp() - last)::float8,
                (sum(dead_letters) OVER ())::bigint, count(*) OVER ()
            FROM causes ORDER BY dead_letters DESC, last DESC, fingerprint LIMIT %(shown)s
            """,
            {"most": MOST_READ + 1, "shown": MOST_SHOWN},
        )
        rows = cursor.fetchall()
    read, causes = (rows[0][6], rows[0][7]) if rows else (0, 0)
    return Causes(
        causes=[
            Cause(
                consumer=consumer,
                error_class=error_class,
                count=count,
                share=max(1, round(100 * count / read)),
                oldest=amounts.ago(first),
                newest=amounts.ago(last),
                url=_list(q=fingerprint, resolution="open"),
            )
            for fingerprint, consumer, error_class, count, first, last, _, _ in rows
        ],
        open=amounts.counted(read, "open dead letter", most=MOST_READ),
        others=causes - len(rows),
        is_limited=read > MOST_READ,
    )


def _list(**filters: str) -> str:
    return f"{reverse('admin:outbox_deadletter_changelist')}?{urlencode(filters)}"
