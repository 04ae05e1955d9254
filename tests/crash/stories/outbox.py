"""Stories of the relay, its broker, and retention."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
from dataclasses import dataclass

import kombu.pools
from celery import current_app
from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now

from outbox import publisher, redelivery, registry, testing
from outbox.broker import dispatch
from outbox.contracts import Event
from outbox.dead_letters import burying
from outbox.models import OutboxMessage, StatisticsTotal
from outbox.relay import relay
from outbox.retention import pruning
from outbox.statistics import rolling_up
from tests.crash.stories.dead_letters import discard, replay
from tests.crash.stories.story import story
from tests.factories import place
from tests.outbox.events import Happened
from tests.processes import eventually


@dataclass(frozen=True, kw_only=True)
class Learned(Event):
    """An event that today's code knows, and for which nothing has to be done."""

    name = "tests.learned"
    version = 2
    key_field = "about"
    upcasters = {1: lambda payload: payload}

    about: str = "thing-1"


def refuse_to_build(message):
    raise ValueError("a workflow that cannot be built")


def nothing_to_do(message):
    return None


SUBSCRIPTIONS = [(Happened, refuse_to_build), (Learned, nothing_to_do)]


def publish(event):
    with transaction.atomic():
        return publisher.publish(event)


def let_the_relay_give_up(story):
    for _ in range(len(relay.POSTPONEMENTS) + 1):
        relay.drain()
        testing.pass_time(dt.timedelta(hours=1))


def let_the_relay_give_up_and_discard(story):
    let_the_relay_give_up(story)
    discard(story)


@story(work=let_the_relay_give_up, afterwards=let_the_relay_give_up_and_discard)
def a_workflow_that_cannot_be_built(story):
    publish(Happened())


def unpark_and_drain(story):
    relay.drain()
    relay.unpark()
    relay.drain()


@story(work=unpark_and_drain, afterwards=unpark_and_drain)
def events_that_older_code_did_not_know(story):
    """Two messages were parked, one of each version; a third is parked and stays so."""
    for version in (1, 2):
        OutboxMessage.objects.filter(pk=publish(Learned())).update(
            status="parked", event_version=version, last_error="UnknownEvent: not known then"
        )
    OutboxMessage.objects.filter(pk=publish(Learned())).update(event_version=3)


def learn_to_read_and_give_up(story):
    OutboxMessage.objects.filter(event_version=3).update(event_version=2)
    testing.pass_time(dt.timedelta(hours=1))
    let_the_relay_give_up_and_discard(story)


@story(work=let_the_relay_give_up, afterwards=learn_to_read_and_give_up)
def redeliveries_that_this_code_cannot_start(story):
    """One event is too new, one replayed workflow is unknown, and one workflow has nothing to do."""
    too_new, unknown, idle = (publish(Learned()) for _ in range(3))
    OutboxMessage.objects.update(status="published", published_at=Now())
    OutboxMessage.objects.filter(pk=too_new).update(event_version=3)
    redelivery.redeliver([too_new, idle], workflow=registry.workflow_name(nothing_to_do))
    given_up = {"source": "task", "consumer": "tests.consumer", "error_class": "E", "error": "e"}
    burying.bury(burying.Failure(**given_up, message_id=str(unknown), workflow="tests.a_workflow_of_yesterday"))
    replay(story)


def drain_without_broker(story):
    with without_broker():
        relay.drain()


@contextlib.contextmanager
def without_broker():
    """Refuse all connections to a broker."""

    def refuse(*_, **__):
        raise ConnectionRefusedError("connection refused")

    establish = kombu.Connection._establish_connection
    kombu.Connection._establish_connection = refuse
    close_pools()
    try:
        yield
    finally:
        kombu.Connection._establish_connection = establish


def close_pools():
    """Close all connections to the broker."""
    kombu.pools.reset()
    current_app._after_fork()


@story(work=drain_without_broker)
def the_broker_is_down(story):
    story.order = place()


def drain_without_queue(story):
    send = dispatch.Batch.send
    dispatch.Batch.send = lambda batch: [sending.headers for sending in batch._others] + batch._headers
    try:
        relay.drain()
    finally:
        dispatch.Batch.send = send


@story(work=drain_without_queue)
def no_queue_accepts_the_messages(story):
    story.order = place()


def drain_as_if_redelivered(story):
    run = testing.run
    testing.run = functools.partial(run, redelivered=True)
    try:
        testing.drain()
    finally:
        testing.run = run


@story(work=drain_as_if_redelivered)
def delivered_again_by_the_broker(story):
    story.order = place()


def prune(story):
    pruning.prune(batch=1)


@story(work=prune)
def old_messages_are_deleted(story):
    for _ in range(2):
        publish(Learned())
    testing.drain()
    testing.pass_time(dt.timedelta(days=settings.OUTBOX_RETENTION_DAYS + 1))


def roll_up(story):
    """Count until the order is counted: transactions of other databases of the server hold it up."""

    def is_counted():
        rolling_up.roll_up()
        return StatisticsTotal.objects.filter(series="orders.placed").exists()

    eventually(is_counted, "the order is counted")


def roll_up_and_compare(story):
    roll_up(story)
    [total] = StatisticsTotal.objects.filter(series="orders.placed")
    assert total.count == 1


@story(work=roll_up, afterwards=roll_up_and_compare)
def counted_into_the_statistics(story):
    story.order = place()
    testing.drain()
