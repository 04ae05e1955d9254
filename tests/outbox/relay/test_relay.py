"""The relay delivers everything that is due; no message delays others, and no relay steals a claim."""

from __future__ import annotations

import dataclasses
import datetime as dt
import threading

import pytest
from celery import Celery, chain, current_app, shared_task
from django.db import connection, transaction

from outbox import publisher, redelivery, registry, testing
from outbox.broker import dispatch
from outbox.contracts import UnreadableEvent
from outbox.models import Attempt, DeadLetter, Delivery, OutboxMessage
from outbox.relay import relay, setbacks
from tests.outbox.events import Happened

SEEN: list[str] = []


@shared_task(name="tests.note")
def note(**ids):
    SEEN.append(ids["about"])


def noted(message):
    return note.si(about=message.event.about)


def explodes(message):
    if message.event.about.startswith("bad"):
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


def test_a_due_message_reaches_its_workflow_once(drain, subscribed):
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


def test_one_bad_message_is_postponed_then_buried_and_delays_no_other(drain, subscribed):
    subscribed(explodes)
    publish("bad", *"abcdef")
    drain()
    assert sorted(SEEN) == list("abcdef")
    assert statuses()["bad"] == "pending"

    for _ in relay.POSTPONEMENTS:
        testing.pass_time(dt.timedelta(hours=1))
        drain()
    [dead_letter] = DeadLetter.objects.all()
    assert (dead_letter.consumer, dead_letter.error_class, dead_letter.key) == (
        "outbox.relay",
        "ValueError",
        "bad",
    )
    assert dead_letter.attempts == len(relay.POSTPONEMENTS) + 1
    assert "no canvas for this one" in dead_letter.traceback
    assert statuses()["bad"] == "buried"


def test_a_failure_of_the_relay_leaves_an_attempt_like_any_other(drain, subscribed):
    subscribed(explodes)
    [message_id] = publish("bad")
    for _ in range(len(relay.POSTPONEMENTS) + 1):
        drain()
        testing.pass_time(dt.timedelta(hours=1))

    tries = list(Attempt.objects.filter(message_id=message_id).order_by("pk"))
    assert [each.outcome for each in tries] == ["postponed"] * len(relay.POSTPONEMENTS) + ["buried"]
    assert {(each.consumer, each.error_class) for each in tries} == {("outbox.relay", "ValueError")}
    assert [each.next_try_at is None for each in tries] == [False] * len(relay.POSTPONEMENTS) + [True]
    assert all("no canvas for this one" in each.traceback for each in tries)


def test_messages_that_the_relay_postponed_together_do_not_come_back_together(drain, subscribed):
    subscribed(explodes)
    publish(*(f"bad {number}" for number in range(5)))
    drain()

    waits = [each.next_try_at - each.failed_at for each in Attempt.objects.all()]
    assert len(waits) == 5
    assert min(waits) >= relay.POSTPONEMENTS[0]
    assert max(waits) - min(waits) > dt.timedelta(milliseconds=10)


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


def park_unreadable(*about):
    """The row was written by older code and lacks a field."""
    publish(*about)
    OutboxMessage.objects.update(event_version=1, payload={"about": "a", "why": "nobody knows"})


def test_an_unreadable_message_is_delivered_once_the_code_can_read_it(drain, subscribed, monkeypatch):
    subscribed(noted)
    monkeypatch.setattr(Happened, "upcasters", {1: lambda payload: {"about": payload["about"]}})
    monkeypatch.setattr(Happened.__dataclass_fields__["deed"], "default", dataclasses.MISSING)
    park_unreadable("a")
    drain()
    assert statuses() == {"a": "parked"}
    assert OutboxMessage.objects.get().last_error.startswith("UnreadableEvent")
    assert relay.unpark() == 0

    monkeypatch.setattr(Happened, "upcasters", {1: lambda payload: {"about": payload["about"], "deed": "?"}})
    assert relay.unpark() == 1
    drain()
    assert SEEN == ["a"]


def test_an_unknown_and_then_unreadable_message_is_delivered_in_the_end(drain, subscribed, monkeypatch):
    park_unreadable("a")
    drain()
    assert OutboxMessage.objects.get().last_error.startswith("UnknownEvent")

    monkeypatch.setattr(Happened, "upcasters", {})
    subscribed(noted)
    drain()
    assert (relay.unpark(), statuses()) == (0, {"a": "parked"})
    monkeypatch.setattr(Happened, "upcasters", {1: lambda payload: {"about": payload["about"]}})
    assert relay.unpark() == 1
    drain()
    assert SEEN == ["a"]


def test_a_parked_message_whose_reading_fails_becomes_a_dead_letter(drain, subscribed, monkeypatch):
    park_unreadable("a")
    drain()
    monkeypatch.setattr(Happened, "upcasters", {1: lambda payload: {"about": payload["what"]}})
    subscribed(noted)
    assert relay.unpark() == 1
    for _ in range(len(relay.POSTPONEMENTS) + 1):
        drain()
        testing.pass_time(dt.timedelta(hours=1))

    assert (statuses(), DeadLetter.objects.get().error_class) == ({"a": "buried"}, "KeyError")


def test_a_handler_that_cannot_read_something_else_does_not_park_its_message(drain, subscribed):
    def reads(message):
        raise UnreadableEvent("of another message")

    subscribed(reads)
    publish("a")
    drain()

    assert (statuses(), OutboxMessage.objects.get().attempts) == ({"a": "pending"}, 1)


def test_many_parked_messages_hide_none_that_can_be_read(drain, subscribed, monkeypatch):
    monkeypatch.setattr(setbacks, "BATCH", 3)
    monkeypatch.setattr(setbacks, "_unparked_until", None)
    subscribed(noted)
    publish(*"abcdefgh")
    OutboxMessage.objects.update(status="parked", last_error="UnreadableEvent: …", event_version=0)
    OutboxMessage.objects.filter(key="h").update(event_version=2)

    released = [relay.unpark(within=dt.timedelta(microseconds=1)) for _ in range(3)]
    assert (sum(released), statuses()["h"]) == (1, "pending")


def test_a_newer_version_than_the_code_is_parked(drain, subscribed):
    subscribed(noted)
    publish("a")
    OutboxMessage.objects.update(event_version=3)
    drain()

    assert statuses() == {"a": "parked"}


def test_a_drain_ends_in_time_and_the_next_one_continues(drain, subscribed):
    subscribed(noted)
    publish(*"abcdef")

    first = relay.drain(batch=2, within=dt.timedelta(microseconds=1))
    assert first.published == 2
    assert relay.drain(batch=2).published == 4


def test_a_row_of_an_older_version_is_upcast(drain, subscribed):
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


def test_concurrent_relays_share_the_work_and_repeat_none(transactional_db, subscribed):
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

    redelivery.redeliver([message_id], workflow=registry.workflow_name(noted))
    drain()
    assert sorted(SEEN) == ["a", "a", "other"]


TOMORROW = "tests.workflows.of_tomorrow"


def test_a_redelivery_to_a_workflow_that_this_code_does_not_know_is_not_lost(drain, subscribed):
    """As during a deployment, or after a workflow was renamed."""
    subscribed(noted)
    [message_id] = publish("a")
    drain()
    redelivery.redeliver([message_id], workflow=TOMORROW)
    assert relay.drain().postponed == 1
    assert "UnknownWorkflow" in Delivery.objects.get(workflow=TOMORROW).last_error

    for _ in relay.POSTPONEMENTS:
        testing.pass_time(dt.timedelta(hours=1))
        relay.drain()
    dead_letter = DeadLetter.objects.get()
    assert (dead_letter.consumer, dead_letter.workflow, dead_letter.error_class) == (
        "outbox.relay", TOMORROW, "UnknownWorkflow"
    )  # fmt: skip
    assert not Delivery.objects.exists()


def test_a_newer_relay_starts_what_an_older_one_could_not(drain, subscribed, monkeypatch):
    subscribed(noted)
    [message_id] = publish("a")
    drain()
    name = registry.workflow_name(noted)
    with monkeypatch.context() as older:
        older.setitem(registry._workflows, Happened.name, {})
        redelivery.redeliver([message_id], workflow=name)
        assert relay.drain().postponed == 1
    testing.pass_time(dt.timedelta(minutes=1))
    drain()

    assert SEEN == ["a", "a"]


def test_a_message_that_is_still_to_reach_a_workflow_unknown_here_is_not_settled(drain, subscribed):
    subscribed(noted)
    publish("a")
    OutboxMessage.objects.update(workflows=[TOMORROW])
    assert (relay.drain().published, SEEN) == (0, [])

    assert "UnknownWorkflow" in OutboxMessage.objects.get(status="pending").last_error


def test_every_task_of_a_chain_carries_the_messages_headers(transactional_db, subscribed):
    def chained(message):
        return chain(note.si(about="1"), note.si(about="2"))

    subscribed(chained)
    testing.purge()
    [message_id] = publish("a")
    relay.drain()
    with current_app.connection_for_read() as broker:
        message = current_app.amqp.queues["jobs"](broker.default_channel).get()
        _, _, embed = message.decode()
        message.ack()
    assert message.headers["message_id"] == str(message_id)
    assert embed["chain"][0]["options"]["headers"]["message_id"] == str(message_id)
    testing.purge()
