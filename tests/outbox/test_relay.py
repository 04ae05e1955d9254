"""The relay: everything due is delivered, nothing holds up the rest, and nobody steals a claim."""

from __future__ import annotations

import datetime as dt
import threading

import pytest
from celery import Celery, chain, current_app, shared_task
from django.db import connection, transaction

from outbox import dispatch, publisher, registry, relay, testing
from outbox.models import DeadLetter, OutboxMessage
from tests.outbox.events import Happened

SEEN: list[str] = []


@shared_task(name="tests.note")
def note(**ids):
    SEEN.append(ids["about"])


def noted(message):
    return note.si(about=message.event.about)


def explodes(message):
    if message.event.about == "bad":
        raise ValueError("no canvas for this one")
    return note.si(about=message.event.about)


@pytest.fixture(autouse=True)
def forget():
    SEEN.clear()


def publish(*about):
    with transaction.atomic():
        return publisher.publish_many(Happened(about=each) for each in about)


def statuses():
    return dict(OutboxMessage.objects.values_list("key", "status"))


def test_what_is_due_reaches_its_workflow_once(drain, subscribed):
    subscribed(noted)
    publish("a", "b")
    drain()
    drain()

    assert sorted(SEEN) == ["a", "b"]
    assert statuses() == {"a": "published", "b": "published"}


def test_an_event_nobody_subscribed_to_is_delivered_to_nobody(drain, subscribed):
    subscribed()
    publish("a")

    assert drain() == []
    assert statuses() == {"a": "published"}


def test_one_bad_message_is_postponed_then_buried_and_holds_up_nobody(drain, subscribed):
    subscribed(explodes)
    publish("bad", *"abcdef")
    drain()
    assert sorted(SEEN) == list("abcdef")
    assert statuses()["bad"] == "pending"

    for _ in relay.POSTPONEMENTS:
        testing.pass_time(dt.timedelta(hours=1))
        drain()
    [letter] = DeadLetter.objects.all()
    assert (letter.consumer, letter.error_class, letter.key) == ("outbox.relay", "ValueError", "bad")
    assert letter.attempts == len(relay.POSTPONEMENTS) + 1
    assert "no canvas for this one" in letter.traceback
    assert statuses()["bad"] == "buried"


def test_an_unknown_event_is_parked_and_delivered_once_the_code_knows_it(drain, subscribed):
    publish("a")
    drain()
    row = OutboxMessage.objects.get()
    assert (row.status, relay.unpark()) == ("parked", 0)
    assert "does not know" in row.last_error

    subscribed(noted)
    assert relay.unpark() == 1
    drain()
    assert SEEN == ["a"]


def test_a_newer_version_than_the_code_is_parked(drain, subscribed):
    subscribed(noted)
    publish("a")
    OutboxMessage.objects.update(event_version=3)
    drain()

    assert statuses() == {"a": "parked"}


def test_a_row_of_an_older_version_meets_todays_code(drain, subscribed):
    subscribed(noted)
    publish("a")
    OutboxMessage.objects.update(event_version=1, payload={"about": "old", "what": "fell"})
    drain()

    assert SEEN == ["old"]


def test_a_payload_that_cannot_be_read_is_parked(drain, subscribed):
    subscribed(noted)
    publish("a")
    OutboxMessage.objects.update(event_version=1, payload={"about": "a", "what": "x"})
    OutboxMessage.objects.update(event_version=0)
    drain()

    assert statuses() == {"a": "parked"}


def test_a_broker_that_is_down_spends_no_attempts(drain, subscribed, monkeypatch):
    subscribed(noted)
    publish("a", "b")

    def refuse(*_, **__):
        raise dispatch.BrokerDown("connection refused")

    with monkeypatch.context() as outage:
        outage.setattr(dispatch.Batch, "send", refuse)
        for _ in range(20):
            assert relay.drain().broker_down
    assert set(OutboxMessage.objects.values_list("status", "attempts", "claim")) == {("pending", 0, None)}

    drain()
    assert sorted(SEEN) == ["a", "b"]


def test_a_broker_that_refuses_connections_is_seen_as_down_within_seconds(transactional_db, subscribed):
    subscribed(noted)
    [message_id] = publish("a")
    elsewhere = Celery("elsewhere", broker="redis://127.0.0.1:9/0", set_as_current=False)
    elsewhere.conf.update(
        broker_transport_options={"socket_connect_timeout": 1, "max_retries": 1, "interval_start": 0}
    )
    row = OutboxMessage.objects.get(pk=message_id)
    message = row.message(registry.load(row.event_name, row.event_version, row.payload))
    canvas = elsewhere.signature("tests.note", kwargs={"about": "a"}, queue="jobs")
    with pytest.raises(dispatch.BrokerDown):
        dispatch.send_all([dispatch.Sending(canvas, message.headers(workflow="tests"))], app=elsewhere)


def test_a_claim_that_ran_out_settles_nothing(transactional_db, subscribed):
    subscribed(noted)
    publish("a")
    late = relay.claim(10, lease=dt.timedelta())
    taken_over = relay.claim(10)

    assert [row.id for row in late] == [row.id for row in taken_over]
    assert relay.settle(late) == 0
    relay.release(late)
    assert OutboxMessage.objects.get().claim == taken_over[0].claim
    assert relay.settle(taken_over) == 1


def test_relays_side_by_side_share_the_work_and_repeat_none(transactional_db, subscribed):
    subscribed(noted)
    publish(*(f"m{number}" for number in range(300)))
    claimed: list[list[str]] = [[], [], []]

    def work(mine):
        while rows := relay.claim(20):
            mine.extend(row.key for row in rows)
            relay.settle(rows)
        connection.close()

    threads = [threading.Thread(target=work, args=(mine,)) for mine in claimed]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    everything = [key for mine in claimed for key in mine]
    assert len(everything) == len(set(everything)) == 300
    assert set(OutboxMessage.objects.values_list("status", flat=True)) == {"published"}


def test_a_redelivery_starts_only_the_workflow_it_names(drain, subscribed):
    def other(message):
        return note.si(about="other")

    subscribed(noted, other)
    [message_id] = publish("a")
    drain()
    assert sorted(SEEN) == ["a", "other"]

    publisher.redeliver([message_id], workflow=registry.workflow_name(noted))
    drain()
    assert sorted(SEEN) == ["a", "a", "other"]


def test_every_task_of_a_chain_carries_the_messages_headers(transactional_db, subscribed):
    def chained(message):
        return chain(note.si(about="1"), note.si(about="2"))

    subscribed(chained)
    testing.purge()
    [message_id] = publish("a")
    relay.drain()
    with current_app.connection_for_read() as link:
        message = current_app.amqp.queues["jobs"](link.default_channel).get()
        _, _, embed = message.decode()
        message.ack()
    assert message.headers["message_id"] == str(message_id)
    assert embed["chain"][0]["options"]["headers"]["message_id"] == str(message_id)
    testing.purge()
