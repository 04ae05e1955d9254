"""Placing writes the models' columns by hand: every column, and one order per key in all cases."""

from __future__ import annotations

import concurrent.futures
import datetime as dt

import pytest
from django.db import DataError, IntegrityError, connection, transaction

from orders import placing, services
from orders.models import IdempotencyRecord, Order, OrderLine, OrderTransition
from outbox import context, publisher
from outbox.database.statements import Table
from outbox.models import OutboxMessage
from tests.factories import ProductFactory, place

pytestmark = pytest.mark.django_db(transaction=True)

TABLES = [placing.MESSAGES, placing.ORDERS, placing.LINES, placing.TRANSITIONS, placing.RECORDS]
CAUSE = "0193670c-6c5f-7a5e-8a4e-1f0f2a9b6c11"


def key(name, **request):
    return services.IdempotencyKey.of(scope="test", key=name, request=request)


def order_request(name, product, **changed):
    return services.OrderRequest(
        **{
            "items": [services.Item(sku=product.sku, quantity=1)],
            "currency": "GBP",
            "payment_method": "pm_card_visa",
            "country": "GB",
            "contact": services.Contact(name="Ada Example", email="ada@example.com"),
            "idempotency": key(name),
        }
        | changed
    )


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.model.__name__)
def test_a_column_is_written_or_filled_in_by_the_database(table):
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT column_name FROM information_schema.columns
            WHERE table_name = %s AND table_schema = current_schema()
              AND column_default IS NULL AND is_identity = 'NO'
            """,
            [table.model._meta.db_table],
        )
        must_be_written = {name for (name,) in cursor.fetchall()}

    assert must_be_written <= {field.column for field in table.fields}


def test_the_written_rows_match_the_order():
    product = ProductFactory()
    work = context.Context(correlation_id="request", causation_id=CAUSE, actor="ada", task="a task")
    with context.bind(work):
        order = place(
            product,
            quantity=3,
            contact=services.Contact(
                name='A "quoted" \\ näme 🙂', email="a@example.com", phone="+44", push_token="p"
            ),
            client_reference="50% off",
            source="cli",
        )

    stored = Order.objects.get()
    for field in Order._meta.concrete_fields:
        assert getattr(stored, field.attname) == getattr(order, field.attname), field.name
    [line] = stored.lines.all()
    assert (line.product, line.quantity, line.unit_price_minor) == (product, 3, product.price_minor)
    [move] = stored.transitions.all()
    assert (move.from_status, move.to_status, move.task, move.actor) == ("", "placed", "a task", "ada")
    assert str(move.message_id) == CAUSE
    message = OutboxMessage.objects.get()
    assert message.payload == services.contracts.OrderPlaced.of(order).payload()
    assert (message.status, message.workflows, message.trace) == ("pending", [], {})


def test_a_message_written_with_other_rows_is_the_one_publishing_writes():
    place()
    by_hand = OutboxMessage.objects.get()
    with transaction.atomic():
        event = services.contracts.OrderPlaced.from_payload(by_hand.payload, version=by_hand.event_version)
        published = OutboxMessage.objects.get(pk=publisher.publish(event))

    own = {"id", "correlation_id", "created_at", "not_before"}
    for field in OutboxMessage._meta.concrete_fields:
        if field.name not in own:
            assert getattr(by_hand, field.attname) == getattr(published, field.attname), field.name


def test_an_order_is_placed_in_two_statements(django_assert_num_queries):
    product = ProductFactory()
    with django_assert_num_queries(4):  # with BEGIN and COMMIT
        place(product)


def test_a_key_used_between_the_query_and_the_lock_gives_the_order_it_placed():
    """The other request commits after our statement's snapshot, and has released the key when we try it."""
    product = ProductFactory()

    def use_the_key():
        try:
            other = place(product, idempotency=key("other"))
            IdempotencyRecord.objects.filter(key="other").update(key="ours", answer={"by": "other"})
            return other
        finally:
            connection.close()

    others = []

    def answer(order, lines):
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            others.append(pool.submit(use_the_key).result(timeout=30))
        return {"by": "us"}

    placement = services.place_order(**vars(order_request("ours", product)), answer=answer)

    assert [placement.order.pk] == [other.pk for other in others]
    assert (placement.replayed, placement.answer) == (True, {"by": "other"})
    assert Order.objects.count() == OutboxMessage.objects.count() == 1


def test_another_broken_constraint_is_not_taken_for_a_used_key():
    product = ProductFactory()
    with pytest.raises(IntegrityError, match="something_is_ordered"):
        services.place_order(
            **vars(order_request("k", product, items=[services.Item(sku=product.sku, quantity=0)])),
        )

    assert not Order.objects.exists()


def test_a_total_beyond_the_column_is_a_data_error():
    product = ProductFactory(price_minor=2**62)
    with pytest.raises(DataError) as caught:
        place(product, quantity=4)

    assert caught.value.__cause__.sqlstate == "22003"


def test_many_orders_are_placed_in_one_transaction_or_none():
    product = ProductFactory()
    before = place(product, idempotency=key("k1"))
    order_requests = [order_request(f"k{number}", product) for number in range(3)]
    with transaction.atomic():
        placements = services.place_orders(order_requests)

    assert [placement.replayed for placement in placements] == [False, True, False]
    assert placements[1].order == before
    assert len({placement.order.correlation_id for placement in placements}) == 3
    for model in (Order, OrderLine, OrderTransition, OutboxMessage, IdempotencyRecord):
        assert model.objects.count() == 3

    missing = order_request("k9", product, items=[services.Item(sku="NOPE", quantity=1)])
    with pytest.raises(services.UnknownProduct), transaction.atomic():
        services.place_orders([order_request("k8", product), missing])
    assert Order.objects.count() == 3


def test_placing_outside_a_transaction_is_refused():
    with pytest.raises(publisher.NotInTransaction):
        services.place_orders([order_request("k", ProductFactory())])


def test_refused_and_repeated_requests_use_no_number():
    product = ProductFactory()
    first = place(product, idempotency=key("a"))
    place(product, idempotency=key("a"))
    with pytest.raises(services.UnknownProduct):
        place(items=[services.Item(sku="NOPE", quantity=1)])
    second = place(product)

    assert int(second.number.removeprefix("OF-")) == int(first.number.removeprefix("OF-")) + 1


def test_an_order_taken_elsewhere_keeps_its_time():
    day = dt.datetime(2010, 12, 1, 8, 26, tzinfo=dt.UTC)
    order = place(placed_at=day)

    assert order.placed_at == Order.objects.get().placed_at == day
    assert order.due_at > day + dt.timedelta(days=365)


def test_a_column_with_a_default_of_the_database_is_left_to_it_unless_given():
    assert "placed_at" not in {field.name for field in Table(Order).fields}
    assert "placed_at" in {field.name for field in placing.ORDERS.fields}
