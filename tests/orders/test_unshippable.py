"""An order that the warehouse cannot ship as described is refunded, once, and not retried forever."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from django.db import transaction

from orders import adapters, ports, services, steps
from orders.adapters.http_warehouse import HttpWarehouse, WarehouseRequestRefused
from orders.models import Order, Payment, Refund, Shipment
from outbox.dead_letters import burying, resolving
from outbox.models import DeadLetter
from outbox.resilience import CredentialsRefused
from tests.factories import ProductFactory, place

ORDER = {
    "order_id": "1",
    "order_number": "OF-1",
    "country": "GB",
    "lines": [("SKU", 1)],
    "idempotency_key": "order-1-shipment",
}
NO_COUNTRY = ["", "gb", "United Kingdom", "G", "GBR", "ＧＢ", "G\n", "GB\n", "12"]


class Answers:
    """A warehouse with one response that the test defines."""

    status, body = 200, b""

    def __init__(self) -> None:
        answers = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(answers.status)
                self.send_header("Content-Length", str(len(answers.body)))
                self.end_headers()
                self.wfile.write(answers.body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def answers(world, settings) -> Iterator[Answers]:
    answers = Answers()
    settings.WAREHOUSE_URL = answers.url
    yield answers
    answers.server.shutdown()
    answers.server.server_close()


def charged(**changed) -> Order:
    """A charged order from before countries were required."""
    order = place()
    steps.validate(order_id=str(order.pk))
    steps.charge(order_id=str(order.pk), gateway=adapters.payment_gateway())
    Order.objects.filter(pk=order.pk).update(**changed)
    return Order.objects.get(pk=order.pk)


def was_given_back(order: Order, world) -> bool:
    order = Order.objects.get(pk=order.pk)
    assert order.status == Order.Status.CANCELLED
    assert order.shipment.status == Shipment.Status.REFUSED
    assert Refund.objects.get().status == Refund.Status.SUCCEEDED
    [refund] = world.payments.ledger(kind="refund")
    return refund["amount"] == order.total_minor


@pytest.mark.parametrize("country", NO_COUNTRY)
def test_an_unshippable_order_cannot_be_placed(db, country):
    with pytest.raises(services.NotShippable):
        place(country=country)

    assert not Order.objects.exists()


@pytest.mark.parametrize("country", ["", "United Kingdom"])
def test_an_older_order_without_a_country_is_rejected_before_it_is_charged(world, drain, country):
    product = ProductFactory(stock=5)
    order = place(product)
    Order.objects.filter(pk=order.pk).update(country=country)
    drain()

    order = Order.objects.get(pk=order.pk)
    assert (order.status, order.reason) == (Order.Status.REJECTED, "there is no country to ship it to")
    assert not Payment.objects.exists()
    assert world.payments.count(kind="payment_intent") == 0
    assert not DeadLetter.objects.exists()


@pytest.mark.parametrize("country", ["", "United Kingdom"])
def test_an_older_order_that_was_charged_without_a_country_is_refunded_and_cancelled(world, drain, country):
    order = charged(country=country)
    drain()

    assert was_given_back(order, world)
    assert not DeadLetter.objects.exists()


def test_replaying_its_old_dead_letter_refunds_it_and_leaves_nothing_open(world, drain):
    order = charged(country="")
    burying.bury(
        burying.Failure(
            source="task",
            consumer="orders.tasks.fulfill",
            error_class="WarehouseRequestRefused",
            error="the warehouse answered 400",
            message_id=str(order.message_id),
            payload={"order_id": str(order.pk)},
        )
    )
    resolving.replay(DeadLetter.objects.all(), by="on call", reason="the warehouse's refusal is an answer now")
    drain()
    drain()

    assert was_given_back(order, world)
    assert DeadLetter.objects.get().resolution == DeadLetter.Resolution.RECOVERED


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("code", ["bad_request", "shipment_refused", "invalid_address", "unknown_country"])
def test_a_refusal_of_the_order_is_final(answers, status, code):
    answers.status, answers.body = status, json.dumps({"code": code, "reason": "no such place"}).encode()

    with pytest.raises(ports.ShipmentRefused, match="no such place"):
        HttpWarehouse().ship(**ORDER)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"code": "key_missing"}),
        (400, {"code": "key_too_long"}),
        (422, {"code": "key_reused"}),
        (400, {}),
        (422, {"reason": "no code"}),
        (400, "<html>Bad Request</html>"),
        (422, ""),
        (413, {"code": "bad_request"}),
        (415, {"code": "bad_request"}),
    ],
)
def test_a_refused_call_says_nothing_about_the_shipment(answers, status, body):
    answers.status, answers.body = status, (body if isinstance(body, str) else json.dumps(body)).encode()

    with pytest.raises(WarehouseRequestRefused):
        HttpWarehouse().ship(**ORDER)


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_are_not_a_refusal_of_the_order(answers, status):
    answers.status, answers.body = status, b'{"code": "bad_request"}'

    with pytest.raises(CredentialsRefused):
        HttpWarehouse().ship(**ORDER)


def test_an_order_whose_shipment_the_warehouse_has_cancelled_can_be_cancelled(world, drain):
    order = charged()
    with world.warehouse.failing(fault="malformed", times=1), pytest.raises(ports.OutcomeUnknown):
        steps.fulfill(order_id=str(order.pk), warehouse=adapters.warehouse())
    [shipment] = world.warehouse.ledger(kind="shipment", match=str(order.pk))
    world.warehouse.change("shipment", shipment["id"], status="cancelled")
    with transaction.atomic(durable=True):
        services.ask_to_cancel(order, requested_by="the customer")
    drain()

    assert Order.objects.get(pk=order.pk).status == Order.Status.CANCELLED
    assert Refund.objects.get().status == Refund.Status.SUCCEEDED
    assert not DeadLetter.objects.exists()
