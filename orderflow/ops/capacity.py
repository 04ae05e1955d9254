"""
The resources for a rate of orders: processors, processes, database sessions, broker messages, disk.

A small model, linear in the rate. Every input was measured, by `run.py bench` or as noted beside it; a report
of the benchmark replaces the values for processors. It does not model queueing: instead it leaves every role
idle for a part of the time (`BUSY`).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
from collections.abc import Mapping
from typing import Any

BUSY = 0.7
"""The maximum utilisation of processors and processes: above, waiting grows faster than the rate."""

DAY = dt.timedelta(days=1)
STEP_MESSAGES = 1
"""Broker messages for an order's steps: its chain continues in the process that began it, while providers
respond within `CHAIN_INLINE_SECONDS`."""
CALLS = 2
"""Provider calls of an order: payment and warehouse. One more for each notification."""
WEB_THREADS = 4
"""Threads of one web process, each with a database session; see `docker-compose.yml`."""
THREADS = 32
"""Tasks that a worker process has in flight at once, in threads."""
MAIN_LOOP = 1
"""The session of a worker process beside those of its pool: to write a dead letter, for example."""
RELAY_SESSIONS = 3
"""One for periodic tasks, one for draining, one for listening."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Costs:
    """Processor milliseconds of one order with one notification, by role."""

    web: float
    relay: float
    orders: float
    notifications: float
    database: float
    broker: float

    @property
    def all_in(self) -> float:
        """The sum over all roles."""
        return float(sum(dataclasses.asdict(self).values()))


MEASURED = {
    "redis": Costs(web=4.97, relay=1.18, orders=6.62, notifications=3.26, database=4.48, broker=0.52),
    "rabbitmq": Costs(web=4.97, relay=2.45, orders=8.95, notifications=4.2, database=6.9, broker=4.1),
}
"""`run.py bench pipeline intake` on two processors of an AMD EPYC; tests/commands/capacity_points.json contains
the runs. The relay's value is for small batches, and falls with larger ones."""

ROLES_OF_BENCHMARK = {
    "relay": "relay",
    "orders": "orders",
    "notifications": "email",
    "database": "postgres",
    "broker": "broker",
}
"""The roles, and the names of their processes in the benchmark."""

BYTES_OF_ORDER = {
    "orders_order": 737,
    "orders_orderline": 225,
    "orders_ordertransition": 963,
    "orders_payment": 553,
    "orders_shipment": 492,
    "orders_idempotencyrecord": 328,
}
"""Bytes on disk for an order with one line, with indexes and room for updates; kept permanently. 400 orders in
four batches on PostgreSQL 18, a vacuum after each."""

BYTES_OF_MESSAGES = 1_372
"""The two messages of an order, measured the same way; kept for `OUTBOX_RETENTION_DAYS`."""

BYTES_OF_NOTIFICATION = 2_314
"""One e-mail, measured the same way; kept permanently."""

WAL_OF_ORDER, WAL_OF_NOTIFICATION = 19_006, 5_088
"""Bytes of WAL, which replicas receive and archives store; measured the same way, including full pages."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Load:
    """The load on the system."""

    orders_per_second: float
    notifications_per_order: float = 1.0
    broker: str = "redis"
    provider: dt.timedelta = dt.timedelta(milliseconds=200)
    """The response time of a provider; a thread or process of a pool waits that long."""
    threads: int = THREADS
    """The threads of a worker process. 0: a prefork pool, whose processes do one thing at a time."""
    pool_size: int = 8
    """The most sessions that the threads of a process share."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Role:
    """The needs of one role. `busy` is in processors at work, `cores` in processors to provide."""

    name: str
    busy: float
    processes: int
    sessions: int

    @property
    def cores(self) -> int:
        """Processors to provide, which are idle for a part of the time."""
        return math.ceil(self.busy / BUSY)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """The disk space for one kind of row, in bytes."""

    name: str
    a_day: float
    kept: dt.timedelta | None
    """None: permanently."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Capacity:
    """The result of the model."""

    load: Load
    roles: list[Role]
    broker_messages_per_second: float
    tables: list[Table]
    wal_bytes_a_day: float

    @property
    def cores(self) -> int:
        """The processors of all roles."""
        return sum(role.cores for role in self.roles)

    @property
    def sessions(self) -> int:
        """The database sessions of all roles."""
        return sum(role.sessions for role in self.roles)

    @property
    def bytes_a_day(self) -> float:
        """The growth of the tables per day, before pruning."""
        return sum(table.a_day for table in self.tables)

    def as_json(self) -> dict[str, Any]:
        """The result as plain data."""
        return {
            "orders_per_second": self.load.orders_per_second,
            "notifications_per_order": self.load.notifications_per_order,
            "broker": self.load.broker,
            "provider_seconds": self.load.provider.total_seconds(),
            "threads": self.load.threads,
            "roles": [dataclasses.asdict(role) | {"cores": role.cores} for role in self.roles],
            "cores": self.cores,
            "database_sessions": self.sessions,
            "broker_messages_per_second": self.broker_messages_per_second,
            "disk_bytes_per_day": {table.name: round(table.a_day) for table in self.tables},
            "wal_bytes_per_day": round(self.wal_bytes_a_day),
        }


class Unusable(Exception):
    """A report of the benchmark lacks what the model needs."""


def needed(load: Load, *, costs: Costs | None = None, retention: dt.timedelta) -> Capacity:
    """Return what `load` needs, with the measured costs or with others."""
    costs = costs or MEASURED[load.broker]
    rate, notifications = load.orders_per_second, load.notifications_per_order
    # The measured order has one notification: costs that depend on broker messages are scaled accordingly.
    messages = STEP_MESSAGES + notifications
    share = messages / (STEP_MESSAGES + 1)
    waits = load.provider.total_seconds()
    busy = {
        "web": costs.web,
        "relay": costs.relay * (1 + notifications) / 2,
        "orders": costs.orders,
        "notifications": costs.notifications * notifications,
        "database": costs.database * share,
        "broker": costs.broker * share,
    }
    at_work = {name: rate * milliseconds / 1000 for name, milliseconds in busy.items()}
    web = _enough(at_work["web"])
    relays = _enough(at_work["relay"])
    orders = _workers(load, at_work["orders"], waiting=rate * CALLS * waits)
    pools = _workers(load, at_work["notifications"], waiting=rate * notifications * waits)
    of_worker = min(load.pool_size, load.threads) + MAIN_LOOP if load.threads else 1
    sizes = {
        "web": (web, web * WEB_THREADS),
        "relay": (relays, relays * RELAY_SESSIONS),
        "orders": (orders, orders * of_worker),
        "notifications": (pools, pools * of_worker),
        "database": (0, 0),
        "broker": (0, 0),
    }
    a_day = rate * DAY.total_seconds()
    tables = [
        *(Table(name=name, a_day=size * a_day, kept=None) for name, size in BYTES_OF_ORDER.items()),
        Table(
            name="notifications_notification", a_day=BYTES_OF_NOTIFICATION * notifications * a_day, kept=None
        ),
        Table(name="outbox_outboxmessage", a_day=BYTES_OF_MESSAGES * a_day, kept=retention),
    ]
    return Capacity(
        load=load,
        roles=[
            Role(name=name, busy=at_work[name], processes=processes, sessions=sessions)
            for name, (processes, sessions) in sizes.items()
        ],
        broker_messages_per_second=rate * messages,
        tables=tables,
        wal_bytes_a_day=(WAL_OF_ORDER + WAL_OF_NOTIFICATION * notifications) * a_day,
    )


def most(*, cores: float, costs: Costs) -> float:
    """The rate of orders at which `cores` processors, shared by all roles, are always busy."""
    return 1000 * cores / costs.all_in


def costs_of(report: Mapping[str, Any]) -> Costs:
    """
    The costs measured in a report of `run.py bench pipeline`; with `intake`, also those of the web server.

    Raises:
        Unusable: if the report has no pipeline, or has another format.
    """
    rows = {
        (result["scenario"], row["name"]): row["cpu"] for result in report["results"] for row in result["rows"]
    }
    pipeline = rows.get(("pipeline", "orderflow"))
    if not pipeline:
        raise Unusable("it has no scenario pipeline; run `python3 run.py bench pipeline intake`")
    web = [
        cpu["web"]
        for (scenario, name), cpu in rows.items()
        if scenario == "intake" and "web" in cpu and name.endswith(", orderflow")
    ]
    broker = report["arguments"]["broker"]
    try:
        return Costs(
            web=max(web, default=MEASURED[broker].web),
            **{role: pipeline[process] for role, process in ROLES_OF_BENCHMARK.items()},
        )
    except KeyError as missing:
        raise Unusable(f"its pipeline has no process {missing}") from missing


def _workers(load: Load, at_work: float, *, waiting: float) -> int:
    """
    The processes of a pool, given the processors that its tasks keep busy and the calls they wait for.

    A process of a prefork pool does one thing at a time. One with threads has many calls in flight, and keeps
    at most one processor busy.
    """
    if not load.threads:
        return _enough(at_work + waiting)
    return max(_enough(at_work), _enough((at_work + waiting) / load.threads))


def _enough(at_work: float) -> int:
    """
    The number of processes so that this many are at work, given that each may be busy for a part of the time.
    """
    return max(1, math.ceil(at_work / BUSY))
