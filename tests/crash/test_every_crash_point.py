"""A process dies at every point between two durable effects, and nothing is lost or done twice."""

from __future__ import annotations

import ast
import re

import pytest
from django.conf import settings

from tests.crash.conftest import (
    assert_nothing_is_lost_or_done_twice,
    die_at,
    forget_everything,
    recover,
    restore_unacknowledged,
)
from tests.processes import ROOT
from tests.slow import but_first

pytestmark = pytest.mark.processes

DIES_IN = {
    "broker.dead_letter_kept": None,
    "cancel.called_off": "cancelled_while_the_charge_is_reserved",
    "cancel.claimed": "cancelled_before_the_charge",
    "cancellation.requested": "cancellation_requested",
    "charge.answered": "fulfilled",
    "charge.asking_again": "asked_for_the_charge_again",
    "charge.calling_off": "charge_needs_its_customer",
    "charge.intended": "fulfilled",
    "charge.unanswered": "charged_without_an_answer",
    "charge.unfinished": "charge_needs_its_customer",
    "charge.without_effect": "met_an_outage",
    "database.identified": "in_a_database_that_was_restored",
    "deliveries.resumed": "notifications_the_broker_lost",
    "delivery.finished": "fulfilled",
    "delivery.touched": "asked_for_the_charge_again",
    "fulfill.answered": "fulfilled",
    "fulfill.intended": "fulfilled",
    "fulfill.refused": "refused_by_the_warehouse",
    "fulfill.without_effect": "met_an_outage_of_the_warehouse",
    "import.chunk_placed": "imported",
    "dead_letters.discarded": "discarded",
    "dead_letters.replayed": "replayed",
    "notification.answered": "fulfilled",
    "notification.call_failed": "met_an_outage",
    "notification.claimed": "fulfilled",
    "notification.let_go": "met_an_outage",
    "order.placed": "placed",
    "orders.resumed": "lost_by_the_broker",
    "recovery.claimed": "looked_up_after_a_restore",
    "recovery.entered": "entered_after_a_restore",
    "recovery.held": "looked_up_after_a_restore",
    "recovery.let_go": "looked_up_after_a_restore",
    "probe.came_back": "notifications_the_broker_lost",
    "probe.sent": "notifications_the_broker_lost",
    "probe.written_down": "notifications_the_broker_lost",
    "refund.answered": "refused_by_the_warehouse",
    "refund.intended": "refused_by_the_warehouse",
    "refund.not_done": "refund_takes_its_time",
    "relay.broker_down": "the_broker_is_down",
    "relay.buried": "a_workflow_that_cannot_be_built",
    "relay.claimed": "fulfilled",
    "relay.parked": "events_that_older_code_did_not_know",
    "relay.postponed": "a_workflow_that_cannot_be_built",
    "relay.released": "the_broker_is_down",
    "relay.sent": "fulfilled",
    "relay.settled": "fulfilled",
    "relay.undelivered": "no_queue_accepts_the_messages",
    "relay.unparked": "events_that_older_code_did_not_know",
    "relay.written_down": "fulfilled",
    "replay.ended": "replayed",
    "retention.batch_deleted": "old_messages_are_deleted",
    "statistics.counted": "counted_into_the_statistics",
    "statistics.folded": "counted_into_the_statistics",
    "statistics.sampled": "counted_into_the_statistics",
    "statistics.settled": "counted_into_the_statistics",
    "statistics.watched": "counted_into_the_statistics",
    "step.begun": "fulfilled",
    "step.buried": "buried",
    "step.call_failed": "met_an_outage",
    "step.done": "fulfilled",
    "step.let_go": "asked_for_the_charge_again",
    "step.loss_noted": "delivered_again_by_the_broker",
    "step.loss_withdrawn": "delivered_again_by_the_broker",
    "step.next_sent": "fulfilled",
    "step.postponed": "met_an_outage",
    "step.redone": "replayed",
    "step.retry_noted": "asked_for_the_charge_again",
    "step.retry_sent": "asked_for_the_charge_again",
    "stranded.answered": "charged_after_it_was_cancelled",
    "stranded.intended": "charged_after_it_was_cancelled",
    "worker.dead_letter_kept": None,
    "worker.taken": None,
}
"""The story in which a process dies at each point. None: in a worker's own process, see
`test_worker_points` and `redis_batches/test_losses`."""


def points_in_the_code():
    return {
        node.args[0].value
        for package in settings.OUTBOX_PROJECT_PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "crash_points.reached"
    }


def test_every_point_has_a_story_that_dies_there():
    assert points_in_the_code() == set(DIES_IN)


CHAINED = [point for point, story in DIES_IN.items() if story == "fulfilled"]
"""The points during a chain, which continues inline or through the broker."""


@pytest.mark.parametrize("point", but_first([point for point, story in DIES_IN.items() if story], first=3))
def test_a_process_that_dies_at_a_point_loses_nothing_and_does_nothing_twice(begin, point):
    story = begin(DIES_IN[point])
    assert die_at(point, lambda: story.work(story)), "the story does not come to this point"

    restore_unacknowledged()
    story.afterwards(story)
    recover()
    assert_nothing_is_lost_or_done_twice(story)


@pytest.mark.slow
@pytest.mark.parametrize(
    "point", but_first([point for point, story in DIES_IN.items() if story], first=20, others="nightly")
)
def test_dying_twice_in_a_row_with_a_broker_that_forgets_changes_nothing(begin, point):
    story = begin(DIES_IN[point])
    assert die_at(point, lambda: story.work(story))
    die_at(point, recover)

    forget_everything()
    story.afterwards(story)
    recover()
    assert_nothing_is_lost_or_done_twice(story)


@pytest.mark.slow
@pytest.mark.parametrize("point", CHAINED)
def test_the_same_holds_for_chains_through_the_broker(begin, point, settings):
    settings.OUTBOX_CHAIN_INLINE_SECONDS = 0
    test_a_process_that_dies_at_a_point_loses_nothing_and_does_nothing_twice(begin, point)


def test_the_document_of_guarantees_lists_every_point():
    document = (ROOT / "docs" / "guarantees.md").read_text()
    table = document[document.index("## Where a process may die") :]

    assert set(re.findall(r"`([a-z_]+\.[a-z_]+)`", table)) == set(DIES_IN)
