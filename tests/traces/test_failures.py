"""Retried, killed, redelivered and exported late: each trace stays whole, and shows what has happened."""

from __future__ import annotations

import pytest

from orderflow.stack import ports
from orders.models import Order
from outbox.models import OutboxMessage
from tests.processes import eventually
from tests.traces import tree
from tests.traces.conftest import SOON
from tests.traces.test_one_order import EVERYTHING

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(180)]

CHARGE, FULFILL = "process orders.tasks.charge", "process orders.tasks.fulfill"
LATE = {"OTEL_BSP_SCHEDULE_DELAY": "600000"}
"""Milliseconds: nothing is exported before its process ends."""


def is_fulfilled(*orders):
    ids = [order.pk for order in orders]
    left = Order.objects.filter(pk__in=ids).exclude(status=Order.Status.FULFILLED)
    return not left.exists() and not OutboxMessage.objects.undelivered().exists()


def named(spans, name):
    return [span for span in spans if span.name == name]


def is_struck(server):
    return any(fault["struck"] for fault in server.faults())


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_quick_try_and_a_lost_worker_are_tries_in_the_same_trace(traced, world, pool):
    traced.start(pool=pool, PROVIDER_TIMEOUT_SECONDS="2")
    world.warehouse.control(fault="hang", latency_ms=60_000, times=1)
    order = traced.place()
    eventually(lambda: is_fulfilled(order), traced.orders.output)
    spans = traced.trace_of(order, *EVERYTHING, FULFILL, "call warehouse", "settle orders.order_fulfilled")

    tree.assert_is_whole(spans)
    first, second = named(spans, FULFILL)
    assert (first.attributes["outbox.outcome"], first.attributes["outbox.attempt"]) == ("retried", 1)
    assert (second.attributes["outbox.outcome"], second.attributes["outbox.attempt"]) == ("succeeded", 2)
    assert first.error
    assert first.event("message.retried")["outbox.wait_seconds"] > 0
    refused = named(spans, "call warehouse")[0]
    assert refused.error
    assert refused.parent == first.id

    world.warehouse.control(fault="hang", latency_ms=60_000, times=1)
    lost = traced.place()
    eventually(lambda: is_struck(world.warehouse), traced.orders.output)
    traced.orders.kill()
    traced.orders.start()
    eventually(lambda: is_fulfilled(lost), traced.orders.output, within=90)

    def spans_until_success():
        spans = traced.trace_of(lost, *EVERYTHING, "settle orders.order_fulfilled")
        return spans if named(spans, FULFILL)[-1].attributes["outbox.outcome"] == "succeeded" else None

    spans = eventually(spans_until_success, "the last try is exported")
    tree.assert_is_whole(spans)
    again = [span for span in spans if span.attributes.get("outbox.delivery", 1) > 1]
    assert again or any(span.attributes.get("outbox.is_redelivered") for span in spans)


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_every_process_exports_its_spans_when_it_ends_and_none_for_polling(traced, pool):
    traced.start(pool=pool, **LATE)
    for path in ("/livez", "/readyz"):
        assert traced.web.get(path) == 200
    order = traced.place()
    eventually(lambda: is_fulfilled(order), traced.orders.output)
    assert traced.receiver.spans == []

    for process in (traced.orders, traced.others, traced.relay):
        assert process.stop(within=20) < 20
    traced.stop()
    spans = traced.trace_of(order, *EVERYTHING)

    tree.assert_is_whole(spans)
    batches = [span for span in traced.receiver.spans if span.name == "send outbox"]
    created = {(span.trace, span.id) for span in spans if span.name.startswith("create ")}
    assert created <= {link for batch in batches for link in batch.links}
    assert {span.trace for span in traced.receiver.spans} == {order_trace := spans[0].trace} | {
        batch.trace for batch in batches
    }, order_trace


def test_a_child_that_is_replaced_exports_its_spans(traced):
    traced.start(pool="prefork", **LATE)
    traced.orders.stop()
    recycled = traced._stack._add(
        "recycled", "worker", "-n", "recycled@test", "-Q", "orders", "-P", "prefork", "-c", "1",
        "--loglevel=INFO", "--max-tasks-per-child", "1", ORDERFLOW_POOL="orders",
        **traced._extra | LATE,
    )  # fmt: skip
    recycled.wait_until_ready()
    order = traced.place()
    eventually(lambda: is_fulfilled(order), recycled.output)

    def arrived():
        return {"process orders.tasks.validate", CHARGE, FULFILL} <= {s.name for s in traced.receiver.spans}

    eventually(arrived, recycled.output)
    assert recycled.is_alive()


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_receiver_that_is_down_costs_each_process_one_warning(traced, protocol):
    nowhere = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{ports.choose()}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
        **SOON,
    }
    traced.start(pool="threads", **nowhere)
    orders = [traced.place() for _ in range(10)]
    eventually(lambda: is_fulfilled(*orders), traced.orders.output)
    text = "Spans cannot be exported"
    workers = (traced.orders, traced.others, traced.relay)
    for process in workers:
        eventually(lambda process=process: process.has_logged(text), process.output)
    more = [traced.place() for _ in range(5)]
    eventually(lambda: is_fulfilled(*more), traced.orders.output)

    assert [process.output().count(text) for process in workers] == [1, 1, 1]
    assert not any("opentelemetry" in process.output() for process in workers)
    assert all(process.stop(within=20) < 10 for process in workers)


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_every_trace_is_whole_under_faults(traced, world, pool):
    """A short drill: workers and relay are killed, a provider fails."""
    traced.start(pool=pool)
    world.payments.control(fault="error", probability=0.1, seed=1)
    world.warehouse.control(fault="slow", latency_ms=300, probability=0.3, seed=2)
    orders = []
    for fault in (traced.orders, traced.relay, traced.others, None):
        orders += [traced.place() for _ in range(5)]
        if fault is not None:
            fault.kill()
            orders.append(traced.place())
            fault.start()
            fault.wait_until_ready()
    eventually(lambda: is_fulfilled(*orders), traced.orders.output, within=110)
    for process in (traced.orders, traced.others, traced.relay):
        process.stop(within=20)  # and exports what it has
    traced.stop()
    # The last spans of a process that was killed are missing, and no other span has one of them as its parent.
    traces = [traced.trace_of(order, "POST api/v1/orders") for order in orders]

    for spans in traces:
        tree.assert_is_whole(spans)
        tree.assert_follows_the_conventions(spans)
    assert len({spans[0].trace for spans in traces}) == len(orders)
