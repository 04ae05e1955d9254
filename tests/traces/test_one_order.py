"""One trace per order, through real processes, on both brokers, with both pools and by both protocols."""

from __future__ import annotations

import pytest

from tests import processes
from tests.traces import receiver, tree
from tests.traces.conftest import TracedStack, exporting

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(180)]

EVERYTHING = {
    "POST api/v1/orders": "server",
    "create orders.order_placed": "producer",
    "settle orders.order_placed": "client",
    "process orders.tasks.validate": "consumer",
    "process orders.tasks.charge": "consumer",
    "call payments": "client",
    "process orders.tasks.fulfill": "consumer",
    "call warehouse": "client",
    "process notifications.tasks.send_email": "consumer",
    "call email": "client",
}
WAYS = [
    ("redis", "threads", "http/protobuf"),
    ("redis", "prefork", "grpc"),
    ("rabbitmq", "threads", "grpc"),
    ("rabbitmq", "prefork", "http/protobuf"),
]


@pytest.mark.parametrize(("broker_url", "pool", "protocol"), WAYS, indirect=["broker_url"])
def test_an_order_is_one_trace(shop, broker_url, pool, protocol, tmp_path):
    over = receiver.over_grpc if protocol == "grpc" else receiver.over_http
    with over() as receive, processes.stack(tmp_path) as started:
        traced = TracedStack(
            started, tmp_path, receive, BROKER_URL=broker_url, **exporting(receive, protocol=protocol)
        )
        traced.start(pool=pool)
        order = traced.place()
        spans = traced.trace_of(order, *EVERYTHING)
        traced.stop()
    tree.assert_is_whole(spans)
    tree.assert_follows_the_conventions(spans)
    found = {span.name: span.kind for span in spans}
    assert {name: found.get(name) for name in EVERYTHING} == EVERYTHING
