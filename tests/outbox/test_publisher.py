"""Publishing: with the transaction or not at all."""

from __future__ import annotations

import datetime as dt

import pytest
from django.db import transaction

from outbox import context, publisher, relay
from outbox.models import OutboxMessage
from tests.outbox.events import Happened


@pytest.mark.django_db(transaction=True)
def test_publishing_outside_a_transaction_raises_and_says_what_to_do():
    with pytest.raises(publisher.NotInTransaction, match="inside"):
        publisher.publish(Happened())

    assert not OutboxMessage.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_rollback_leaves_no_message():
    with pytest.raises(RuntimeError), transaction.atomic():
        publisher.publish(Happened())
        raise RuntimeError

    assert not OutboxMessage.objects.exists()


@pytest.mark.django_db
def test_a_thousand_events_are_one_insert(django_assert_num_queries):
    with django_assert_num_queries(1):
        ids = publisher.publish_many(Happened(about=str(number)) for number in range(1000))

    assert len(set(ids)) == 1000
    assert ids == sorted(ids)


@pytest.mark.django_db
def test_a_message_says_which_request_and_which_message_led_to_it():
    work = context.Context(correlation_id="request", causation_id="cause", trace={"traceparent": "00-a-b-01"})
    with context.bind(work):
        message_id = publisher.publish(Happened(about="order-7"))

    row = OutboxMessage.objects.get(pk=message_id)
    assert (row.correlation_id, row.causation_id, row.trace) == ("request", "cause", work.trace)
    assert (row.event_name, row.event_version, row.key) == ("tests.happened", 2, "order-7")


@pytest.mark.django_db
def test_an_event_for_later_is_left_alone_until_then():
    later = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    publisher.publish(Happened(), not_before=later)

    assert relay.claim(10) == []


@pytest.mark.django_db
def test_a_redelivery_keeps_the_id_and_names_what_to_start():
    message_id = publisher.publish(Happened())
    OutboxMessage.objects.update(status="published")
    assert publisher.redeliver([message_id], workflow="a", wait=dt.timedelta(minutes=5)) == 1
    publisher.redeliver([message_id], workflow="b", wait=dt.timedelta(minutes=1))

    row = OutboxMessage.objects.get()
    assert (row.pk, row.status, row.workflows, row.redeliveries) == (message_id, "pending", ["a", "b"], 2)
    assert row.not_before < dt.datetime.now(dt.UTC) + dt.timedelta(minutes=2)


@pytest.mark.django_db
def test_a_redelivery_of_a_message_that_a_relay_is_settling_is_not_lost():
    message_id = publisher.publish(Happened())
    [row] = relay.claim(10)
    publisher.redeliver([message_id], workflow="a")

    assert relay.settle([row]) == 0
    assert [again.id for again in relay.claim(10)] == [message_id]
