"""
How the faults of the matrix are injected. Each function returns one that ends its fault.

They act on the matrix's own processes by process id, on connections through the proxy, on the sandbox through
its control API, and on the database directly, as a careless person would.
"""

from __future__ import annotations

import dataclasses
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psycopg
import requests
from django.db import connection

from orderflow.chaos.faults.providers import CONTROL_PATIENCE, address_of, password
from orderflow.chaos.load import planned_orders
from orderflow.chaos.load.client import Client
from orderflow.chaos.own_stack import OwnStack
from outbox.verification import examination

End = Callable[[], None]

PATIENCE = 30.0
"""Seconds to wait for a target."""

SERVICES = {
    "worker-orders": ("orders", "orders-2"),
    **{f"worker-{pool}": (pool,) for pool in ("relay", "email", "sms", "push", "jobs")},
}
"""The processes of the services in docker-compose.yml; all others have the name of their process."""


class NoTarget(Exception):
    """There is nothing that the fault could act on."""


@dataclasses.dataclass(kw_only=True)
class Target:
    """The stack of the matrix: its processes, its servers and a client of its API."""

    stack: OwnStack
    held: Path
    client: Client
    broker_routes: tuple[str, ...]

    def start_services(self, services: Sequence[str]) -> None:
        """Start services of Compose again, or all: their processes, or the connections to a server."""
        if not services or "postgres" in services:
            self.stack.network(database={"refuse": False})
        if not services or {"valkey", "rabbitmq"} & set(services):
            self.stack.network(**{route: {"refuse": False} for route in self.broker_routes})
        held = [path.name for path in self.held.iterdir()]
        for name in [name for service in services for name in SERVICES.get(service, (service,))] or held:
            (self.held / name).unlink(missing_ok=True)


def keep_down(*names: str) -> Callable[[Target], End]:
    """Kill processes and all their children; the process manager cannot start them again."""

    def begin(target: Target) -> End:
        for name in names:
            (target.held / name).touch()
            target.stack.signal_all(target.stack.process(name), signal.SIGKILL)

        def end() -> None:
            for name in names:
                (target.held / name).unlink(missing_ok=True)

        return end

    return begin


def refuse_connections(*routes: str) -> Callable[[Target], End]:
    """Refuse connections to a server; no route means the broker."""

    def begin(target: Target) -> End:
        chosen = routes or target.broker_routes
        target.stack.network(**{route: {"refuse": True} for route in chosen})
        return lambda: target.stack.network(**{route: {"refuse": False} for route in chosen})

    return begin


def provider(*providers: str, **fault: Any) -> Callable[[Target], End]:
    """Let providers misbehave; see `orderflow.sandbox.faults`."""

    def begin(target: Target) -> End:
        made = [_control(name, target, fault) for name in providers]

        def end() -> None:
            for address in made:
                requests.delete(address, timeout=CONTROL_PATIENCE, auth=password()).raise_for_status()

        return end

    return begin


def _control(name: str, target: Target, fault: dict[str, Any]) -> str:
    control = f"{address_of(name, target.stack)}/_control"
    answer = requests.post(control, json=fault, timeout=CONTROL_PATIENCE, auth=password())
    answer.raise_for_status()
    return f"{control}/{answer.json()['id']}"


POISONED, POISONED_PRICE = 8, 7_771
"""More dead letters than the alert needs, and few among all orders; the price tells them from the others."""


def poison(target: Target) -> End:
    """Place orders whose charges are refused for a reason that only a person can remove."""
    end = provider("payments", fault="error", status=400, match=f"amount={POISONED_PRICE}")(target)
    _place(target, "DRILL-POISON", POISONED, price=POISONED_PRICE)
    return end


def _place(target: Target, sku: str, count: int, *, price: int = 1_000) -> list[str]:
    """Place orders for one product; return their ids."""
    planned_orders.stock_one(sku, count, price=price)
    run = f"{sku.lower()}-{time.time():.0f}"
    ids = []
    for planned in planned_orders.draw(count, seed=1, run=run):
        good = dataclasses.replace(
            planned,
            kind="good",
            cancel_after=None,
            body={
                **planned.body,
                "items": [{"sku": sku, "quantity": 1}],
                "payment_method": planned_orders.GOOD_CARD,
            },
        )
        placed = target.client.place(good, until=time.time() + PATIENCE)
        if not placed.is_accepted:
            raise NoTarget(f"an order was not accepted: {placed.refused or placed.tries}")
        ids.append(placed.order_id)
    return ids


def break_sweep(_: Target) -> End:
    """Have the database refuse to record that the sweep for late orders is done, as a full disk would."""
    _execute(
        """
        CREATE FUNCTION matrix_refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'No space left on device' USING ERRCODE = '53100'; END $$;
        CREATE TRIGGER matrix_refuse BEFORE UPDATE OF last_ended_at ON outbox_periodicrun FOR EACH ROW
        WHEN (NEW.name = 'orders.tasks.sweep') EXECUTE FUNCTION matrix_refuse();
        """
    )
    return lambda: _execute("DROP FUNCTION IF EXISTS matrix_refuse CASCADE")


def change_by_hand(_: Target) -> End:
    """Claim a delivered message by hand, which contradicts an invariant, and verify."""
    _execute(
        "UPDATE outbox_outboxmessage SET claim = gen_random_uuid() WHERE id ="
        " (SELECT id FROM outbox_outboxmessage WHERE status = 'published' ORDER BY id DESC LIMIT 1)"
    )
    verify()
    return lambda: None


def verify() -> None:
    """Examine all invariants and keep the result, as the hourly task does."""
    examination.keep(examination.run(), by="matrix")


def age_verifications(_: Target) -> End:
    """Nobody has verified for hours: the worker for jobs was down all the time."""
    _execute("UPDATE outbox_verification SET ran_at = ran_at - interval '4 hours'")
    return lambda: None


def forget_session(target: Target) -> End:
    """A session of a person holds the lock on the row of an unfinished order, and is left open."""
    end_provider = provider("payments", fault="slow", latency_ms=3_000)(target)
    [order] = _place(target, "DRILL-LOCKED", 1)
    parameters = {
        name: value
        for name, value in connection.get_connection_params().items()
        if name not in ("cursor_factory", "context", "options", "prepare_threshold")
    }
    session = psycopg.connect(**parameters, application_name="psql")
    session.execute("SELECT FROM orders_order WHERE id = %s FOR UPDATE", [order])
    end_provider()

    return session.close


COPIED_ROWS = 2_500_000
"""160 MB: more than 80 % of `SIZE_LIMIT` with the little that a stack has at its start."""


def leave_a_copy(_: Target) -> End:
    """Somebody has made a large copy of a table and forgotten it."""
    _execute(
        f"CREATE TABLE copy_of_attempts AS SELECT md5(n::text) FROM generate_series(1, {COPIED_ROWS}) AS n"  # noqa: S608 - our own number
    )
    return lambda: _execute("DROP TABLE copy_of_attempts")


def _execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)
