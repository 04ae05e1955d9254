"""
The case of docs/tracing.md: an order is stuck, and its trace names the call that is guilty.

With `RECORD_TRACE=docs/stuck-order.json` the first test writes the trace that the page's picture is drawn from.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from benchmarks.pictures import trace as picture
from orders.models import Order
from tests.processes import ROOT, eventually
from tests.traces import tree
from tests.traces.test_one_order import EVERYTHING

RECORDED, DRAWN = ROOT / "docs" / "stuck-order.json", ROOT / "docs" / "stuck-order.svg"
TITLE = "An order that was stuck: the warehouse did not answer"


def guilty(bars):
    """The failed call in which the trace has spent most of its time."""
    calls = [bar for bar in bars if bar.has_failed and bar.name.startswith("call ")]
    return max(calls, key=lambda bar: bar.ended - bar.began)


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_trace_of_a_stuck_order_names_the_guilty_call(traced, world):
    traced.start(pool="threads", PROVIDER_TIMEOUT_SECONDS="2")
    world.warehouse.control(fault="hang", latency_ms=60_000, times=2)
    order = traced.place()
    eventually(lambda: Order.objects.get(pk=order.pk).status == "fulfilled", traced.orders.output, within=90)
    tries = ["process orders.tasks.fulfill", "call warehouse"]
    spans = traced.trace_of(order, *EVERYTHING, *tries, *tries, "settle orders.order_fulfilled")
    document = traced.receiver.document(spans[0].trace)
    if path := os.environ.get("RECORD_TRACE"):
        Path(path).write_text(json.dumps(document, indent=1).replace(os.uname().nodename, "host") + "\n")

    tree.assert_is_whole(spans)
    assert guilty(picture.read(document)).name == "call warehouse"
    assert guilty(picture.read(document)).ended - guilty(picture.read(document)).began >= 2


def test_the_picture_is_that_of_the_recorded_trace():
    bars = picture.read(json.loads(RECORDED.read_text()))

    assert guilty(bars).name == "call warehouse"
    assert picture.draw(bars, title=TITLE) == DRAWN.read_text()
    assert not any(text in RECORDED.read_text() for text in ("ada@example.com", "+4477", "Ada"))
