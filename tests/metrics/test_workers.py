"""Real workers: their metrics are right with threads, with processes, and after kills and recycling."""

from __future__ import annotations

import collections
import os
import signal

import psutil
import pytest
from celery import current_app

from orderflow.stack import ports
from orders.models import Order, OrderTransition
from outbox.models import Attempt
from tests.factories import ProductFactory, place
from tests.metrics import scraping
from tests.processes import eventually, stack

pytestmark = [
    pytest.mark.slow,
    pytest.mark.processes,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(180),
]

STEPS = {f"orders.tasks.{step}" for step in ("validate", "charge", "fulfill")}


@pytest.fixture
def started(tmp_path):
    current_app.control.purge()
    with stack(tmp_path) as started:
        yield started
    current_app.control.purge()


@pytest.fixture
def port():
    return str(ports.choose())


def all_are(status, orders):
    return Order.objects.filter(pk__in=[order.pk for order in orders], status=status).count() == len(orders)


def by_step(samples):
    return {task: scraping.attempts(samples, task) for task in STEPS}


@pytest.mark.parametrize(("pool", "concurrency"), [("threads", 4), ("prefork", 2), ("solo", 1)])
def test_what_a_worker_has_done_is_counted(started, world, port, pool, concurrency):
    worker = started.worker("orders", "orders", pool=pool, concurrency=concurrency, METRICS_PORT=port)
    relay = started.relay(METRICS_PORT=str(relay_port := ports.choose()))
    for process in (worker, relay):
        process.wait_until_ready()
    orders = [place() for _ in range(12)]
    declined = place(payment_method="pm_card_visa_chargeDeclined")
    eventually(lambda: all_are(Order.Status.FULFILLED, orders), "fulfilled")
    eventually(lambda: all_are(Order.Status.REJECTED, [declined]), "rejected")

    def is_counted():
        found = by_step(scraping.read(int(port)))
        return found["orders.tasks.fulfill"].get("succeeded", 0) >= 12

    eventually(is_counted, "the counts have arrived")
    samples = scraping.read(int(port))
    done = {task: found["succeeded"] for task, found in by_step(samples).items()}
    assert done["orders.tasks.validate"] == done["orders.tasks.charge"] == 13
    tries = sum(by_step(samples)["orders.tasks.charge"].values())  # a copy that came twice was skipped
    assert 13 <= samples["orderflow_task_duration_seconds_count", "orders.tasks.charge"] <= tries
    assert samples["orderflow_provider_calls_total", "payments", "succeeded"] >= 12
    assert samples["orderflow_provider_calls_total", "payments", "other"] >= 1, "the declined card"
    assert samples["orderflow_message_critical_seconds_count", "orders.order_placed"] == 13
    assert 0 < samples["orderflow_message_critical_seconds_sum", "orders.order_placed"] < 13 * 60
    assert samples["orderflow_queue_wait_seconds_count", "orders.tasks.validate"] >= 13
    assert samples["orderflow_pool_size", "orders"] == concurrency
    assert samples["orderflow_pool_busy", "orders"] == 0
    assert samples["orderflow_signals_lost_total",] == 0
    assert samples["orderflow_child_processes",] == (concurrency if pool == "prefork" else 0)

    relayed = scraping.read(relay_port)
    assert relayed["orderflow_relay_messages_total",] >= 13
    assert relayed["orderflow_relay_batch_seconds_count",] >= 1


def test_a_busy_pool_is_seen(started, world, port):
    world.payments.control(fault="slow", latency_ms=4000, times=3)
    worker = started.worker("orders", "orders", pool="threads", concurrency=8, METRICS_PORT=port)
    started.relay()
    worker.wait_until_ready()
    for _ in range(3):
        place()

    eventually(lambda: scraping.read(int(port))["orderflow_pool_busy", "orders"] == 3, "three are busy")


def test_counters_equal_the_rows_after_kills_and_recycling(started, world, port):
    """
    Children are killed, and end after two tasks each, while they work.

    A child that dies between the commit of its row and its signal has a row and no count, so the counters may
    lack as many as were killed; with kills while calling a provider that hangs, they lack none.
    """
    worker = started.worker(
        "orders", "orders", concurrency=3, include="tests.metrics.recycling", METRICS_PORT=port
    )
    started.relay()
    worker.wait_until_ready()
    first_children = {child.pid for child in worker.children()}
    product = ProductFactory()
    orders = [place(product) for _ in range(10)]
    eventually(lambda: all_are(Order.Status.FULFILLED, orders), "fulfilled")
    worker.freeze()  # so that it does not charge the orders before the provider hangs
    hanging = [place(product) for _ in range(2)]
    for order in hanging:
        world.payments.control(fault="slow", latency_ms=8000, times=1, match=f"order-{order.pk}-charge")
    worker.thaw()
    eventually(lambda: all(fault["struck"] for fault in world.payments.faults()), "two charges hang")
    at_work = [child for child in worker.children() if _is_connected(child, world.payments.url)]
    for child in at_work:
        child.send_signal(signal.SIGKILL)
    killed = 2  # others were idle, with a connection that they keep
    world.payments.clear_faults()
    started.beat()  # the sweep resumes what was lost
    eventually(lambda: all_are(Order.Status.FULFILLED, [*orders, *hanging]), "all are fulfilled", within=90)

    rows = collections.Counter(
        OrderTransition.objects.filter(order__in=[*orders, *hanging]).values_list("to_status", flat=True)
    )
    wanted = {
        "orders.tasks.validate": rows[Order.Status.VALIDATED],
        "orders.tasks.charge": rows[Order.Status.CHARGED],
        "orders.tasks.fulfill": rows[Order.Status.FULFILLED],
    }

    def succeeded():
        samples = scraping.read(int(port))
        return {task: scraping.attempts(samples, task).get("succeeded", 0) for task in STEPS}

    eventually(lambda: succeeded() == wanted, lambda: f"{succeeded()} counted, {wanted} in rows", within=20)
    assert not first_children & {child.pid for child in worker.children()}, "all children were replaced"
    samples = scraping.read(int(port))
    failed = collections.Counter(
        Attempt.objects.exclude(outcome__in=["waited", "lost"]).values_list("consumer", flat=True)
    )
    counted = {
        task: sum(scraping.attempts(samples, task).get(kind, 0) for kind in ("transient", "permanent"))
        for task in STEPS
    }
    assert counted == {task: failed[task] for task in STEPS}
    assert scraping.attempts(samples, "orders.tasks.validate")["crash"] == killed, "the chain began with it"
    assert samples["orderflow_signals_lost_total",] == 0


def _is_connected(child, address):
    port = int(address.rpartition(":")[2])
    return any(each.raddr and each.raddr.port == port for each in child.net_connections(kind="tcp"))


def test_a_killed_worker_leaves_its_port_free_although_its_children_live(started, world, port):
    worker = started.worker("orders", "orders", concurrency=2, METRICS_PORT=port)
    scraping.when_served(int(port))
    worker.wait_until_ready()
    children = worker.children()
    os.kill(worker.pid, signal.SIGKILL)
    worker._popen.wait(10)

    try:
        assert any(child.is_running() for child in children)
        assert ports.is_free(int(port))
    finally:
        worker.kill()


def test_two_processes_with_one_port_both_work(started, world, port):
    first = started.worker("orders", "orders", pool="solo", METRICS_PORT=port)
    first.wait_until_ready()
    second = started.worker("email", "email", pool="solo", METRICS_PORT=port)
    second.wait_until_ready()

    assert second.has_logged(f"port {port} cannot be used")
    scraping.when_served(int(port))


def test_without_a_port_nothing_is_imported_and_nothing_served(started, world):
    worker = started.worker("orders", "orders", pool="threads", concurrency=2, include="tests.metrics.imported")
    worker.wait_until_ready()

    assert worker.has_logged("imported: []")
    listening = [each for each in psutil.Process(worker.pid).net_connections() if each.status == "LISTEN"]
    assert listening == []


def test_beat_serves_its_process(started, world, port):
    started.beat(METRICS_PORT=port)

    samples = scraping.when_served(int(port))
    assert samples["process_resident_memory_bytes",] > 0
    assert not [key for key in samples if key[0] == "orderflow_pool_size"]
