"""A whole restore with real processes: pg_dump under load, more orders, pg_restore, providers without keys."""

from __future__ import annotations

import collections
import contextlib
import subprocess
import threading

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, connections

from orderflow.stack.servers import binaries
from orders import services
from orders.models import Order
from outbox import testing
from outbox.database import clock
from outbox.models import DeadLetter, Restore
from outbox.verification import restores
from tests import processes
from tests.factories import ProductFactory, place
from tests.processes import eventually
from tests.restore.backups import empty_database, forget_keys

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("world")]

PLACED_WITHIN, WORKED_OFF_WITHIN = 180, 300
"""Seconds for some hundred orders on a machine that is shared by many; an idle one needs a sixth of them."""

CUSTOMER = services.Contact(name="Ada Example", phone="+447700900001")


class Client(threading.Thread):
    """A client that places orders, one after the other, until it is stopped."""

    def __init__(self, product, *, pause):
        super().__init__()
        self.placed = []
        self._product, self._pause, self._end = product, pause, threading.Event()

    def run(self):
        try:
            while not self._end.wait(self._pause):
                self.placed.append(place(self._product, contact=CUSTOMER, country="GB"))
        finally:
            connection.close()

    def stop(self):
        self._end.set()
        self.join()
        return self.placed


@pytest.fixture
def started(drain, tmp_path, world):
    """Starts the processes that process orders; all of them end with the test."""
    with processes.stack(tmp_path) as stack:

        def start():
            stack.relay()
            stack.beat()
            workers = [
                stack.worker("orders", "orders", concurrency=2),
                stack.worker("sms", "sms", concurrency=1),
            ]
            for worker in workers:
                worker.wait_until_ready()
            return stack

        yield start


def dump(folder):
    """A backup as operators take it, while the system is in use."""
    file = folder / "backup.dump"
    _postgres("pg_dump", "--format=custom", f"--file={file}")
    return file


def load(file):
    """Restore the backup into a new database with the old name."""
    connections.close_all()
    empty_database()
    _postgres("pg_restore", "--exit-on-error", "--no-owner", str(file))


def _postgres(program, *options):
    settings = connection.settings_dict
    server = [f"--host={settings['HOST']}", f"--port={settings['PORT']}", f"--username={settings['USER']}"]
    subprocess.run(
        [binaries.postgres().sibling(program), *server, f"--dbname={settings['NAME']}", *options],
        env={"PGPASSWORD": settings["PASSWORD"]},
        check=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(12, 12, id="short", marks=[pytest.mark.slow, pytest.mark.timeout(240)]),
        pytest.param(400, 400, id="long", marks=[pytest.mark.nightly, pytest.mark.timeout(1800)]),
    ],
)
def test_a_restore_under_load_charges_ships_and_numbers_nothing_twice(started, world, tmp_path, before, after):
    product = ProductFactory(stock=10_000)
    restores.check()
    stack = started()
    client = Client(product, pause=0.05)
    client.start()
    eventually(lambda: len(client.placed) >= before, "orders placed before the backup", within=PLACED_WITHIN)
    with world.payments.failing(fault="slow", latency_ms=1000, times=4):
        data_until = clock.now()
        backup = dump(tmp_path)
    most = before + after
    eventually(lambda: len(client.placed) >= most, "orders placed after the backup", within=PLACED_WITHIN)
    known = client.stop()
    eventually(
        lambda: shipments(world) >= before, "parcels that left after the backup", within=WORKED_OFF_WITHIN
    )
    stack.stop()

    testing.purge()
    forget_keys(world.payments, world.warehouse)
    load(backup)
    verify_after_restore(data_until)
    in_flight = Order.objects.unfinished().count()
    forgotten = {order.pk for order in known} - set(Order.objects.values_list("pk", flat=True))
    assert Restore.objects.exists()
    assert forgotten
    started()
    again = Client(product, pause=0.05)
    again.start()
    eventually(lambda: len(again.placed) >= 5, "orders placed after the restore")
    known += again.stop()
    all_end(f"the orders in flight at the backup, {in_flight}, and those placed since")
    verify_after_restore(data_until, "--repair", "--apply", "--reason", "the backup was restored")
    all_end("the forgotten orders that were entered again")

    numbers = collections.Counter(order.number for order in known)
    assert max(numbers.values()) == 1
    intents = world.payments.ledger(kind="payment_intent")
    charges = collections.Counter(intent["metadata"]["order_id"] for intent in intents)
    parcels = collections.Counter(one["order_id"] for one in world.warehouse.ledger(kind="shipment"))
    assert set(charges.values()) == set(parcels.values()) == {1}
    refunded = {one["payment_intent"] for one in world.payments.ledger(kind="refund")}
    for intent in intents:
        order_id = intent["metadata"]["order_id"]
        assert (order_id in parcels) != (intent["id"] in refunded), story_of(order_id)
    assert set(charges) <= {str(pk) for pk in Order.objects.values_list("pk", flat=True)}
    texts = collections.Counter(one["body"] for one in world.sms.ledger())
    assert max(texts.values()) == 1
    assert not DeadLetter.objects.unresolved().exists()
    call_command("verify", "--after-restore", data_until.isoformat(), verbosity=0)


def shipments(world):
    return world.warehouse.count(kind="shipment")


def verify_after_restore(data_until, *options):
    """Declare the restore; violations that the command finds are no failure of the test."""
    with contextlib.suppress(CommandError):
        call_command("verify", "--after-restore", data_until.isoformat(), *options)


def story_of(order_id):
    """The history of an order, for failures that occur once in a hundred runs."""
    order = Order.objects.filter(pk=order_id).first()
    if order is None:
        return f"{order_id} is not here"
    steps = order.transitions.order_by("pk").values_list("to_status", "note", "at")
    return f"{order} ({order_id}), {order.status}: {[(to, note, at.isoformat()) for to, note, at in steps]}"


def all_end(what):
    eventually(
        lambda: not Order.objects.unfinished().exists(), lambda: f"the end of {what}", within=WORKED_OFF_WITHIN
    )
