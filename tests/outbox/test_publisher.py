"""Events are published with the transaction or not at all."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest
from django.db import transaction
from django.db.models.functions import Now

from outbox import context, contracts, publisher, redelivery, registry
from outbox.models import DeadLetter, Delivery, OutboxMessage
from outbox.relay import relay
from tests.outbox.events import Happened


@pytest.mark.django_db(transaction=True)
def test_publishing_outside_a_transaction_raises_an_error_with_instructions():
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
def test_a_message_contains_its_correlation_id_and_its_causation_id():
    work = context.Context(correlation_id="request", causation_id="cause", trace={"traceparent": "00-a-b-01"})
    with context.bind(work):
        message_id = publisher.publish(Happened(about="order-7"))

    row = OutboxMessage.objects.get(pk=message_id)
    assert (row.correlation_id, row.causation_id, row.trace) == ("request", "cause", work.trace)
    assert (row.event_name, row.event_version, row.key) == ("tests.happened", 2, "order-7")


@pytest.mark.django_db
def test_an_event_for_later_is_not_delivered_before_its_time():
    later = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    publisher.publish(Happened(), not_before=later)

    assert relay.claim(10) == []


@pytest.mark.django_db
def test_a_redelivery_keeps_the_id_and_moves_one_workflow_only():
    message_id = publisher.publish(Happened())
    OutboxMessage.objects.update(status="published")
    assert redelivery.redeliver([message_id], workflow="a", wait=dt.timedelta(minutes=5)) == 1
    redelivery.redeliver([message_id], workflow="b", wait=dt.timedelta(minutes=1))

    message, now = OutboxMessage.objects.get(), dt.datetime.now(dt.UTC)
    assert (message.pk, message.status, message.redeliveries) == (message_id, "published", 2)
    waits = {
        row.workflow: (row.status, row.generation, round((row.not_before - now).total_seconds() / 60))
        for row in Delivery.objects.filter(message_id=message_id)
    }
    assert waits == {"a": ("waiting", 1, 5), "b": ("waiting", 2, 1)}


@pytest.mark.django_db
def test_a_prefix_redelivers_all_workflows_with_that_prefix(subscribed):
    subscribed(first_workflow, second_workflow)
    message_id = publisher.publish(Happened())
    OutboxMessage.objects.update(status="published")
    redelivery.redeliver([message_id], workflow=f"{__name__}.")

    assert sorted(Delivery.objects.values_list("workflow", flat=True)) == [
        registry.workflow_name(first_workflow),
        registry.workflow_name(second_workflow),
    ]


def first_workflow(message):
    return None


def second_workflow(message):
    return None


@pytest.mark.django_db
@pytest.mark.parametrize(("workflow", "settled"), [("", 0), ("a", 1)])
def test_a_redelivery_of_a_message_that_a_relay_is_settling_is_not_lost(workflow, settled):
    message_id = publisher.publish(Happened())
    [row] = relay.claim(10)
    redelivery.redeliver([message_id], workflow=workflow)

    assert relay.settle([row]) == settled
    assert [(again.id, again.redelivers) for again in relay.claim(10)] == [(message_id, workflow)]


OURS, THEIRS = "orders.workflows.fulfillment", "notifications.workflows.by_email"


def waiting(message_id, workflow):
    Delivery.objects.create(message_id=message_id, workflow=workflow, generation=1, status="waiting")


def given_up(message_id, workflow, resolution):
    resolved = {} if resolution == "open" else {"resolved_at": Now(), "resolved_by": "ada", "reason": "x"}
    DeadLetter.objects.create(
        source="task",
        consumer="c",
        error_class="E",
        error="e",
        fingerprint="f",
        digest=f"{workflow} {resolution}",
        message_id=message_id,
        workflow=workflow,
        resolution=resolution,
        **resolved,
    )


STANDINGS = {
    "nobody deals with it": (1, []),
    "it is delivered for the first time": (0, [("status", "pending")]),
    "it cannot be read": (0, [("status", "parked")]),
    "its workflow waits": (0, [("waiting", OURS)]),
    "another workflow waits": (1, [("waiting", THEIRS)]),
    "its workflow was given up": (0, [("dead letter", OURS, "open")]),
    "all of it was given up": (0, [("dead letter", "", "open")]),
    "another workflow was given up": (1, [("dead letter", THEIRS, "open")]),
    "a person has discarded its workflow": (0, [("dead letter", OURS, "discarded")]),
    "a person has discarded all of it": (0, [("dead letter", "", "discarded")]),
    "a person has discarded another workflow": (1, [("dead letter", THEIRS, "discarded")]),
    "it has recovered before": (1, [("dead letter", OURS, "recovered")]),
}


@pytest.mark.django_db
@pytest.mark.parametrize(("resumed", "standing"), STANDINGS.values(), ids=STANDINGS.keys())
def test_an_overdue_message_is_resumed_unless_it_is_under_way_or_was_ended(subscribed, resumed, standing):
    message_id = publisher.publish(Happened())
    OutboxMessage.objects.update(status="published", published_at=Now())
    for kind, *how in standing:
        if kind == "status":
            OutboxMessage.objects.update(status=how[0])
        else:
            {"waiting": waiting, "dead letter": given_up}[kind](message_id, *how)
    before = set(Delivery.objects.values_list("workflow", "generation"))

    assert redelivery.resume([message_id], workflow="orders.workflows.") == resumed
    assert OutboxMessage.objects.get().redeliveries == resumed
    taken_up = set(Delivery.objects.values_list("workflow", "generation")) - before
    assert len(taken_up) == resumed
    assert {workflow.startswith("orders.workflows.") for workflow, _ in taken_up} <= {True}


def test_an_invalid_event_class_is_refused_when_the_process_starts():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Nameless(contracts.Event):
        text: str

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Keyed(contracts.Event):
        name = "tests.keyed"
        key_field = "oder_id"
        order_id: str

    class Plain(contracts.Event):
        name = "tests.plain"

    for event, reason in (
        (Nameless, "has no name"),
        (Keyed, "not one of its fields: order_id"),
        (Plain, "dataclass"),
    ):
        with pytest.raises(registry.NotAContract, match=reason):
            registry.register([event])


def test_an_event_without_a_key_field_has_no_key():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Said(contracts.Event):
        name = "tests.said"
        text: str

    assert Said(text="hello").key == ""
