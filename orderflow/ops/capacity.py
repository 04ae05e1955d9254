"""
How much a rate of orders takes: processors, processes, database sessions, broker messages, disk.

A small model, linear in the rate. Each figure it is fed with was measured, by `run.py bench` or as told beside
it; a report of the benchmark replaces those of the processors. It knows no queueing: it leaves every role
idle for a part of the time (`BUSY`) instead.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
from collections.abc import Mapping
from typing import Any

BUSY = 0.7
"""How much of their time processors and processes may be at work: above, waiting grows faster than the rate."""

DAY = dt.timedelta(days=1)
STEP_MESSAGES = 1
"""Broker messages that carry an order through its steps: its chain goes on in the process that began it, while
providers answer within `CHAIN_INLINE_SECONDS`."""
CALLS = 2
"""Calls of an order to providers: the payment and the warehouse. One more for each notification."""
WEB_THREADS = 4
"""Of one web process, each with a database session; see `docker-compose.yml`."""
RELAY_SESSIONS = 2
"""One drains, one listens."""


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
        """All roles together."""
        return float(sum(dataclasses.asdict(self).values()))


MEASURED = {
    "redis": Costs(web=4.97, relay=1.18, orders=6.62, notifications=3.26, database=4.48, broker=0.52),
    "rabbitmq": Costs(web=4.97, relay=2.45, orders=8.95, notifications=4.2, database=6.9, broker=4.1),
}
"""`run.py bench pipeline intake` on two processors of an AMD EPYC; tests/commands/capacity_points.json has the
runs. The relay's is that of small batches, and falls when it has more to do at a time."""

ROLES_OF_BENCHMARK = {
    "relay": "relay",
    "orders": "orders",
    "notifications": "email",
    "database": "postgres",
    "broker": "broker",
}
"""The roles, and what the benchmark calls their processes."""

BYTES_OF_ORDER = {
    "orders_order": 737,
    "orders_orderline": 225,
    "orders_ordertransition": 963,
    "orders_payment": 553,
    "orders_shipment": 492,
    "orders_idempotencyrecord": 328,
}
"""On disk with indexes and room for updates, of an order with one line; kept for good. 400 orders in four
batches on PostgreSQL 18, a vacuum after each."""

BYTES_OF_MESSAGES = 1_372
"""The two messages of an order, measured likewise; kept for `OUTBOX_RETENTION_DAYS`."""

BYTES_OF_NOTIFICATION = 2_314
"""One e-mail, measured likewise; kept for good."""

WAL_OF_ORDER, WAL_OF_NOTIFICATION = 19_006, 5_088
"""Bytes that are written ahead, shipped to replicas and archived; measured likewise, full pages included."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Load:
    """What the system is to bear."""

    orders_per_second: float
    notifications_per_order: float = 1.0
    broker: str = "redis"
    provider: dt.timedelta = dt.timedelta(milliseconds=200)
    """How long a provider takes to answer; a process of a pool waits that long."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Role:
    """What one role takes. `busy` is in processors at work, `cores` in processors to have for it."""

    name: str
    busy: float
    processes: int
    sessions: int

    @property
    def cores(self) -> int:
        """Processors to have, of which it leaves a part idle."""
        return math.ceil(self.busy / BUSY)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """Disk that one kind of row takes, in bytes."""

    name: str
    a_day: float
    kept: dt.timedelta | None
    """None: for good."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Capacity:
    """The model's answer."""

    load: Load
    roles: list[Role]
    broker_messages_per_second: float
    tables: list[Table]
    wal_bytes_a_day: float

    @property
    def cores(self) -> int:
        """Processors of all roles."""
        return sum(role.cores for role in self.roles)

    @property
    def sessions(self) -> int:
        """Database sessions of all roles."""
        return sum(role.sessions for role in self.roles)

    @property
    def bytes_a_day(self) -> float:
        """Disk that the tables take each day, before anything is pruned."""
        return sum(table.a_day for table in self.tables)

    def as_json(self) -> dict[str, Any]:
        """The answer as plain data."""
        return {
            "orders_per_second": self.load.orders_per_second,
            "notifications_per_order": self.load.notifications_per_order,
            "broker": self.load.broker,
            "provider_seconds": self.load.provider.total_seconds(),
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
    """What `load` takes, with the measured costs or others."""
    costs = costs or MEASURED[load.broker]
    rate, news = load.orders_per_second, load.notifications_per_order
    # The measured order has one notification: what grows with the broker's messages grows by its share.
    messages = STEP_MESSAGES + news
    share = messages / (STEP_MESSAGES + 1)
    waits = load.provider.total_seconds()
    busy = {
        "web": costs.web,
        "relay": costs.relay * (1 + news) / 2,
        "orders": costs.orders,
        "notifications": costs.notifications * news,
        "database": costs.database * share,
        "broker": costs.broker * share,
    }
    at_work = {name: rate * milliseconds / 1000 for name, milliseconds in busy.items()}
    web = _enough(at_work["web"])
    relays = _enough(at_work["relay"])
    # A process of a pool does one thing at a time, and most of it is waiting for a provider.
    orders = _enough(at_work["orders"] + rate * CALLS * waits)
    pools = _enough(at_work["notifications"] + rate * news * waits)
    sizes = {
        "web": (web, web * WEB_THREADS),
        "relay": (relays, relays * RELAY_SESSIONS),
        "orders": (orders, orders),
        "notifications": (pools, pools),
        "database": (0, 0),
        "broker": (0, 0),
    }
    a_day = rate * DAY.total_seconds()
    tables = [
        *(Table(name=name, a_day=size * a_day, kept=None) for name, size in BYTES_OF_ORDER.items()),
        Table(name="notifications_notification", a_day=BYTES_OF_NOTIFICATION * news * a_day, kept=None),
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
        wal_bytes_a_day=(WAL_OF_ORDER + WAL_OF_NOTIFICATION * news) * a_day,
    )


def most(*, cores: float, costs: Costs) -> float:
    """Orders per second at which `cores` processors are busy all the time, if they carry all roles."""
    return 1000 * cores / costs.all_in


def costs_of(report: Mapping[str, Any]) -> Costs:
    """
    The costs that a report of `run.py bench pipeline` has measured; with `intake`, those of the web too.

    Raises:
        Unusable: if it has no pipeline, or that of another shape.
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
        raise Unusable(f"its pipeline tells nothing of the process {missing}") from missing


def _enough(at_work: float) -> int:
    """Processes of which so many are at work all the time, when each may be for a part of it."""
    return max(1, math.ceil(at_work / BUSY))
