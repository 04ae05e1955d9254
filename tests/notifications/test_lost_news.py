"""News whose message a broker or a worker has lost."""

from __future__ import annotations

import datetime as dt

import pytest
from django.db.models import F
from django.db.models.functions import Now

from notifications import sweep, workflows
from notifications.models import Channel, Notification, Watermark
from outbox import dead_letters, registry, relay, testing
from outbox.models import DeadLetter, OutboxMessage
from tests.notifications.news import ONLY_EMAIL, ONLY_SMS, publish

pytestmark = pytest.mark.usefixtures("world")


def grow_old(**span):
    """Let what was published, and what was looked through, be older."""
    by = dt.timedelta(**span)
    OutboxMessage.objects.update(published_at=F("published_at") - by)
    Watermark.objects.update(checked_until=F("checked_until") - by)


def lose():
    """Hand what is published to a broker that forgets it."""
    relay.drain()
    testing.purge()


def test_news_that_the_broker_lost_is_delivered_again_by_every_way(drain):
    message = publish()
    lose()
    assert sweep.resume_lost() == 0

    grow_old(minutes=1)
    assert sweep.resume_lost() == 3
    drain()
    assert set(Notification.objects.filter(message_id=message).values_list("channel", "status")) == {
        ("email", "sent"),
        ("sms", "sent"),
        ("push", "sent"),
    }


def test_news_that_is_lost_again_is_taken_up_with_growing_patience(drain):
    message = publish(**ONLY_SMS)
    for _ in range(1 + sweep.UNDOUBLED):
        lose()
        grow_old(minutes=1)
        assert sweep.resume_lost() == 1
        assert OutboxMessage.objects.due().exists()
    lose()
    grow_old(minutes=1)
    assert sweep.resume_lost() == 1
    assert relay.drain().published == 0

    testing.pass_time(sweep.PATIENCE)
    drain()
    assert Notification.objects.get(message_id=message).status == Notification.Status.SENT


def test_news_that_was_told_is_left_alone(drain):
    publish()
    drain()
    grow_old(hours=2)

    assert sweep.resume_lost() == 0


def test_news_that_was_given_up_is_left_to_the_operator(drain):
    publish(customer_email="bounce@example.com", customer_phone="", customer_push_token="")
    drain(redeliveries=True)
    grow_old(hours=2)
    assert sweep.resume_lost() == 0

    dead_letters.discard(DeadLetter.objects.all(), by="on call", reason="no such mailbox")
    grow_old(hours=2)
    assert sweep.resume_lost() == 0


def test_a_slice_at_a_time_is_looked_through_and_none_is_passed_over(drain, monkeypatch):
    monkeypatch.setattr(sweep, "SLICE", 2)
    told = [publish(**ONLY_EMAIL) for _ in range(3)]
    drain()
    lost = [publish(**ONLY_EMAIL) for _ in range(3)]
    lose()
    for age, message in enumerate(lost + told):
        OutboxMessage.objects.filter(pk=message).update(published_at=Now() - dt.timedelta(hours=1, seconds=age))

    assert [sweep.resume_lost() for _ in range(4)] == [0, 1, 2, 0]


def test_the_workflows_it_starts_are_those_of_the_channels():
    handlers = (workflows.by_email, workflows.by_sms, workflows.by_push)
    assert {sweep.WORKFLOW.format(channel=channel) for channel in Channel} == {
        registry.workflow_name(handler) for handler in handlers
    }
