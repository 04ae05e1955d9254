"""
What is counted of orders: placed, finished, and finished in time.

All of it is read from the history of moves, which is never changed or deleted.
"""

from __future__ import annotations

import datetime as dt

from django.conf import settings

from orders.models import Order, OrderTransition
from orders.moves import FINAL
from outbox.statistics.catalogue import Rows, count, duration

OBJECTIVE = dt.timedelta(seconds=settings.ORDER_OBJECTIVE_SECONDS)
"""An order should be final within this time."""

GRACE = OBJECTIVE / 6
"""How long after that the verdict is read: the transaction that finished an order in time has ended by then."""

HISTORY, ORDERS = OrderTransition._meta.db_table, Order._meta.db_table
OF_ORDER = f"JOIN {ORDERS} AS placed ON placed.id = counted.order_id"
PLACED = "counted.from_status = ''"

SERIES = [
    count("orders.placed", "Orders that were placed.", rows=Rows(table=HISTORY, at="counted.at", where=PLACED)),
    duration(
        "orders.finished",
        "Orders that became final, and how long after they were placed.",
        labels=("outcome",),
        rows=Rows(
            table=HISTORY,
            join=OF_ORDER,
            at="counted.at",
            where="counted.to_status = ANY(%(final)s)",
            seconds="greatest(0, extract(epoch FROM counted.at - placed.placed_at))",
            labels=("counted.to_status",),
            values={"final": sorted(str(status) for status in FINAL)},
        ),
    ),
    count(
        "orders.due",
        "Orders whose time to become final is over, by whether they became final within it.",
        labels=("in_time",),
        rows=Rows(
            table=HISTORY,
            join=OF_ORDER,
            at="placed.placed_at + %(objective)s",
            where=PLACED,
            labels=(
                "CASE WHEN placed.finished_at - placed.placed_at BETWEEN interval '0' AND %(objective)s"
                " THEN 'yes' ELSE 'no' END",
            ),
            is_early="placed.placed_at BETWEEN statement_timestamp() - %(patience)s AND statement_timestamp()",
            values={"objective": OBJECTIVE, "patience": OBJECTIVE + GRACE},
        ),
    ),
]
