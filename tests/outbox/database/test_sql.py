"""Hand-written parts of SQL statements match the models."""

from __future__ import annotations

import pytest

from orders import claims
from orders.models import Order, Payment, Shipment
from outbox.database.statements import columns, insert_from
from outbox.models import OutboxMessage
from tests.factories import ProductFactory, place


def test_columns_are_those_of_the_model_in_its_order():
    names = columns(Order).split(", ")

    assert names == [field.column for field in Order._meta.concrete_fields]
    assert columns(Order, of="o") == ", ".join(f"o.{name}" for name in names)


@pytest.mark.django_db
@pytest.mark.parametrize("kind", ["charge", "ship"])
def test_an_inserted_intent_equals_the_row_of_the_model(kind):
    order = place(ProductFactory(stock=1))
    way, claim, model = {
        "charge": (["validated"], claims.claim_to_charge, Payment),
        "ship": (["validated", "charged"], claims.claim_to_ship, Shipment),
    }[kind]
    for status in way:
        Order.objects.filter(pk=order.pk).update(status=status)
    _, intent, is_new, *_ = claim(str(order.pk), key="a key")

    assert is_new
    stored = model.objects.get()
    for field in model._meta.concrete_fields:
        if not field.has_db_default():
            assert getattr(stored, field.attname) == getattr(intent, field.attname), field.name


def test_a_column_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="Payment has no columns"):
        insert_from(Payment, "claimed", no_such_column="1")


def test_a_column_without_a_default_must_be_given():
    with pytest.raises(ValueError, match="needs a value"):
        insert_from(OutboxMessage, "somewhere", id="1")
