"""Stories of notifications that are sent, suppressed or lost."""

from __future__ import annotations

import datetime as dt

from django.db.models.functions import Now

from notifications.models import Preference
from orders import services
from outbox import testing
from outbox.models import QueueProbe
from outbox.relay import probes, relay
from tests.crash.stories.dead_letters import discard
from tests.crash.stories.story import EVERY_WAY, drain, drain_all, story
from tests.factories import place


def discard_all(story):
    testing.drain(redeliveries=True)
    discard(story)


@story(work=drain_all, afterwards=discard_all)
def notification_for_a_mailbox_that_does_not_exist(story):
    story.order = place(contact=services.Contact(email="bounce@example.com"))


@story(work=drain)
def notification_that_the_customer_does_not_want(story):
    Preference.objects.create(email="ada@example.com", channel="sms", enabled=False)
    story.order = place(contact=EVERY_WAY)


def sweep(story):
    for _ in range(4):
        probes.sweep()
        testing.drain()
        testing.pass_time(dt.timedelta(minutes=1))
    probes.sweep()
    testing.drain()


@story(work=sweep)
def notifications_the_broker_lost(story):
    QueueProbe.objects.create(queue="email", returned_at=Now())  # from before the queues were watched
    story.order = place(contact=EVERY_WAY)
    relay.drain()
    testing.purge()
    testing.pass_time(dt.timedelta(seconds=10))
