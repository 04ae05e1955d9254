"""Stories of what was given up, and of the person who replays or discards it."""

from __future__ import annotations

from orders.models import Order
from outbox import testing
from outbox.dead_letters import resolving
from outbox.models import DeadLetter
from tests.crash.stories.story import drain, story
from tests.factories import place

BAD_CARD = "pm_no_such_card"


def mend_the_card(story):
    Order.objects.filter(pk=story.order.pk).update(payment_method="pm_card_visa")


def replay(story):
    resolving.replay(DeadLetter.objects.all(), by="on call", reason="card corrected")


def replay_and_drain(story):
    replay(story)
    testing.drain()


def discard(story):
    resolving.discard(DeadLetter.objects.all(), by="on call", reason="a mistake", cancel=True)


def mend_and_replay(story):
    testing.drain()
    mend_the_card(story)
    replay(story)


@story(work=drain, afterwards=mend_and_replay)
def buried(story):
    story.order = place(payment_method=BAD_CARD)


@story(work=replay_and_drain, afterwards=replay)
def replayed(story):
    buried(story)
    testing.drain()
    mend_the_card(story)


@story(work=discard, afterwards=discard)
def discarded(story):
    """The order is not final: it is cancelled, and nothing takes the charge up again."""
    buried(story)
    testing.drain()
