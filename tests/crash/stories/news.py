"""Stories of what customers are told, or not."""

from __future__ import annotations

import datetime as dt

from notifications import sweep as lost_news
from notifications.models import Notification, Preference
from orders import services
from outbox import testing
from tests.crash.stories.dead_letters import discard
from tests.crash.stories.story import EVERY_WAY, drain, drain_all, story
from tests.factories import place


def discard_all(story):
    testing.drain(redeliveries=True)
    discard(story)


@story(work=drain_all, afterwards=discard_all)
def news_for_a_mailbox_that_is_none(story):
    story.order = place(contact=services.Contact(email="bounce@example.com"))


@story(work=drain)
def news_that_nobody_wants(story):
    Preference.objects.create(email="ada@example.com", channel="sms", enabled=False)
    story.order = place(contact=EVERY_WAY)


def sweep_news(story):
    lost_news.resume_lost()
    testing.drain()


@story(work=sweep_news)
def news_the_broker_lost(story):
    story.order = place(contact=EVERY_WAY)
    testing.drain()
    Notification.objects.all().delete()
    testing.pass_time(dt.timedelta(minutes=2))
