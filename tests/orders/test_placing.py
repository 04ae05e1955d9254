"""Placing: one transaction, one order per key."""

from __future__ import annotations

import threading

import pytest
from django.db import connection

from orders import services, steps
from orders.models import IdempotencyRecord, Order, OrderLine, OrderTransition, Product
from outbox.models import OutboxMessage
from tests.factories import ProductFactory, place

pytestmark = pytest.mark.django_db(transaction=True)


def key(name="k", **request):
    return services.IdempotencyKey.of(scope="test", key=name, request=request)


def test_an_order_is_written_with_its_event_in_one_transaction():
    order = place()

    message = OutboxMessage.objects.get()
    assert (message.event_name, message.key, message.pk) == (
        "orders.order_placed",
        str(order.pk),
        order.message_id,
    )
    assert message.payload["order_number"] == order.number
    assert message.correlation_id == order.correlation_id
    assert (
        OrderLine.objects.count() == OrderTransition.objects.count() == IdempotencyRecord.objects.count() == 1
    )


def test_an_order_that_cannot_be_placed_leaves_nothing_behind():
    with pytest.raises(services.UnknownProduct, match="NOPE"):
        place(items=[services.Item(sku="NOPE", quantity=1)])

    for model in (Order, OutboxMessage, IdempotencyRecord):
        assert not model.objects.exists()


def test_lines_of_the_same_product_merge():
    product = ProductFactory()
    order = place(
        items=[services.Item(sku=product.sku, quantity=2), services.Item(sku=product.sku, quantity=3)]
    )

    assert OrderLine.objects.get().quantity == 5
    assert order.total_minor == 5 * product.price_minor


def test_a_product_of_another_currency_is_refused():
    with pytest.raises(services.MixedCurrencies, match="EUR"):
        place(ProductFactory(currency="EUR"))


def test_the_same_key_gives_the_same_order_and_response():
    product = ProductFactory()
    first = place(product, idempotency=key(a=1))
    again = place(product, idempotency=key(a=1))

    assert first.pk == again.pk
    assert Order.objects.count() == OutboxMessage.objects.count() == 1


def test_the_same_key_for_another_request_is_refused():
    product = ProductFactory()
    place(product, idempotency=key(a=1))

    with pytest.raises(services.KeyReused):
        place(product, idempotency=key(a=2))


def test_many_requests_with_one_key_at_once_place_one_order():
    product, outcomes = ProductFactory(), []

    def post():
        try:
            outcomes.append(place(product, idempotency=key(a=1)).pk)
        except services.KeyInUse:
            outcomes.append("in use")
        connection.close()

    threads = [threading.Thread(target=post) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert Order.objects.count() == 1
    assert set(outcomes) <= {Order.objects.get().pk, "in use"}


def test_orders_that_share_products_reserve_without_deadlock_and_never_oversell(world):
    first, second = ProductFactory(stock=10), ProductFactory(stock=10)
    orders = [
        place(items=[services.Item(sku=a.sku, quantity=1), services.Item(sku=b.sku, quantity=1)])
        for a, b in [(first, second), (second, first)] * 8
    ]
    failures = []

    def work(mine):
        try:
            for order in mine:
                steps.validate(order_id=str(order.pk))
        except Exception as error:
            failures.append(error)
        connection.close()

    threads = [threading.Thread(target=work, args=(orders[offset::4],)) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not failures
    assert list(Product.objects.values_list("on_hand", "reserved")) == [(0, 10), (0, 10)]
    assert Order.objects.filter(status="rejected").count() == 6
