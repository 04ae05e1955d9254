"""Every replay has a visible outcome: the dead letter has recovered or is open again."""

from __future__ import annotations

import datetime as dt
import threading

import pytest
from celery import shared_task
from django.contrib.admin.models import LogEntry
from django.db import connection, transaction

from outbox import publisher, redelivery, tasks, testing
from outbox.consumer import ConsumerTask
from outbox.dead_letters import campaigns, resolving
from outbox.models import Attempt, DeadLetter, OutboxMessage, Replay
from outbox.relay import relay, setbacks
from outbox.resilience import NotNow, Permanent
from tests.outbox.events import Happened

pytestmark = pytest.mark.django_db(transaction=True)

broken: set[str] = set()
waiting: set[str] = set()
done: list[str] = []


@shared_task(base=ConsumerTask)
def work(*, message_id, **_):
    if message_id in waiting:
        raise NotNow("not yet", retry_after=dt.timedelta(seconds=5))
    if message_id in broken:
        raise Permanent(f"try {len(done)} cannot work")
    done.append(message_id)


def working(message):
    return work.si(message_id=str(message.id))


@pytest.fixture
def bury(drain, subscribed):
    """Publish messages and let each of them fail for good."""
    subscribed(working)
    broken.clear()
    waiting.clear()
    done.clear()

    def bury(number=1):
        with transaction.atomic():
            ids = [str(publisher.publish(Happened())) for _ in range(number)]
        broken.update(ids)
        drain()
        return ids

    return bury


def replay(**known):
    return resolving.replay(DeadLetter.objects.all(), by="ops", reason="mended", **known)


def test_a_replay_that_works_ends_as_recovered(bury, drain):
    bury()
    broken.clear()
    campaign = replay().campaign
    assert DeadLetter.objects.get().resolution == "replaying"
    assert str(campaigns.outcomes(campaign.pk)) == "1 sent: 1 under way"

    drain()
    dead_letter = DeadLetter.objects.get()
    assert (dead_letter.resolution, dead_letter.resolved_by, dead_letter.reason) == (
        "recovered",
        "ops",
        "mended",
    )
    assert str(campaigns.outcomes(campaign.pk)) == "1 sent: 1 recovered"


def test_a_replay_that_fails_again_opens_the_same_dead_letter_with_the_new_attempts_below_the_old(bury, drain):
    bury()
    before = DeadLetter.objects.get()
    campaign = replay().campaign
    drain()

    dead_letter = DeadLetter.objects.get()
    assert (dead_letter.pk, dead_letter.resolution, dead_letter.attempts) == (before.pk, "open", 2)
    assert (dead_letter.resolved_at, dead_letter.resolved_by, dead_letter.reason) == (None, "", "")
    assert Attempt.objects.filter(message_id=dead_letter.message_id).count() == 2
    assert str(campaigns.outcomes(campaign.pk)) == "1 sent: 1 failed again"
    replayed = Replay.objects.get()
    assert (replayed.dead_letter_id, replayed.campaign.by, replayed.campaign.reason) == (
        dead_letter.pk,
        "ops",
        "mended",
    )


def test_a_campaign_counts_recovered_and_failed_replays(bury, drain):
    ids = bury(6)
    broken.difference_update(ids[:2])
    campaign = replay().campaign
    drain()

    assert str(campaigns.outcomes(campaign.pk)) == "6 sent: 2 recovered, 4 failed again"
    assert DeadLetter.objects.count() == 6
    assert DeadLetter.objects.open().count() == 4

    broken.clear()
    second = replay().campaign
    drain()
    assert str(campaigns.outcomes(second.pk)) == "4 sent: 4 recovered"
    assert str(campaigns.outcomes(campaign.pk)) == "6 sent: 2 recovered, 4 failed again"
    assert not DeadLetter.objects.unresolved().exists()


def test_a_replay_that_waits_is_under_way_until_it_ends(bury, drain):
    ids = bury()
    broken.clear()
    waiting.update(ids)
    campaign = replay().campaign
    for _ in range(3):
        drain()
        testing.pass_time(dt.timedelta(minutes=1))
        campaigns.end_finished()
        assert campaigns.outcomes(campaign.pk).under_way == 1

    waiting.clear()
    drain()
    assert campaigns.outcomes(campaign.pk).recovered == 1


def test_the_admins_history_contains_the_outcome_of_a_replay(bury, drain, django_user_model):
    user = django_user_model.objects.create_user("ops")
    bury()
    replay(user_id=user.pk)
    drain()
    broken.clear()
    replay(user_id=user.pk)
    drain()

    messages = list(LogEntry.objects.order_by("pk").values_list("change_message", flat=True))
    assert messages == [
        "being replayed: mended",
        "Replay ended: failed again",
        "being replayed: mended",
        "Replay ended: recovered",
    ]


def test_the_outcome_is_recorded_if_the_account_of_the_person_was_deleted(bury, drain, django_user_model):
    user = django_user_model.objects.create_user("ops")
    bury()
    campaign = replay(user_id=user.pk).campaign
    user.delete()
    drain()

    assert campaigns.outcomes(campaign.pk).failed == 1


def test_a_dead_letter_being_replayed_is_neither_replayed_nor_discarded(bury):
    bury()
    campaign = replay().campaign

    assert replay().done == 0
    assert resolving.discard(DeadLetter.objects.all(), by="ops", reason="enough").done == 0
    assert DeadLetter.objects.get().resolution == "replaying"
    assert campaigns.outcomes(campaign.pk).sent == 1
    assert OutboxMessage.objects.get().redeliveries == 1


def decide_at_the_same_time(*decisions):
    """Take these decisions about all dead letters concurrently; return how many each one resolved."""
    together = threading.Barrier(len(decisions))
    counts: list[int] = []

    def act(decide):
        together.wait(10)
        counts.append(decide(DeadLetter.objects.all(), by="ops", reason="me").done)
        connection.close()

    threads = [threading.Thread(target=act, args=[decide]) for decide in decisions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return counts


def test_two_people_who_replay_at_the_same_time_replay_each_dead_letter_once(bury):
    bury(20)
    counts = decide_at_the_same_time(resolving.replay, resolving.replay)

    assert sorted(counts) == [0, 20]
    assert Replay.objects.count() == 20
    assert set(OutboxMessage.objects.values_list("redeliveries", flat=True)) == {1}


def test_two_people_who_replay_and_discard_at_the_same_time_decide_each_dead_letter_once(bury):
    bury(20)
    counts = decide_at_the_same_time(resolving.replay, resolving.discard)

    assert sum(counts) == 20
    assert Replay.objects.count() == DeadLetter.objects.filter(resolution="replaying").count()


def test_discarded_work_is_not_done_by_a_message_that_is_delivered_again(bury, drain):
    bury()
    resolving.discard(DeadLetter.objects.all(), by="ops", reason="not wanted")
    broken.clear()
    redelivery.redeliver([OutboxMessage.objects.get().pk])
    drain()

    assert done == []
    assert DeadLetter.objects.get().resolution == "discarded"


def test_the_replay_of_what_the_relay_gave_up_recovers_when_a_broker_has_it(drain, subscribed, monkeypatch):
    monkeypatch.setattr(setbacks, "POSTPONEMENTS", ())
    failing = [True]

    def building(message):
        if failing:
            raise ValueError("cannot be built")

    subscribed(building)
    with transaction.atomic():
        publisher.publish(Happened())
    drain()
    assert DeadLetter.objects.get().consumer == "outbox.relay"
    first = replay().campaign
    drain()
    assert campaigns.outcomes(first.pk).failed == 1

    failing.clear()
    second = replay().campaign
    drain()
    assert campaigns.outcomes(second.pk).recovered == 1


def test_work_that_no_app_knows_recovers_when_its_delivery_has_ended(bury, drain, monkeypatch):
    ids = bury()
    broken.clear()
    waiting.update(ids)
    campaign = replay().campaign
    with monkeypatch.context() as dying:
        dying.setattr(campaigns, "record_success", lambda **_: 0)
        drain()
        testing.pass_time(dt.timedelta(minutes=1))
        campaigns.end_finished()
        assert campaigns.outcomes(campaign.pk).under_way == 1

        waiting.clear()
        drain()
    assert done == ids
    assert campaigns.end_finished() == 1
    assert campaigns.outcomes(campaign.pk).recovered == 1


def test_ending_many_replays_stops_in_time_and_the_next_call_continues(bury, drain, monkeypatch):
    bury(5)
    broken.clear()
    campaign = replay().campaign
    monkeypatch.setattr(campaigns, "record_success", lambda **_: 0)
    drain()
    testing.pass_time(dt.timedelta(minutes=1))

    monkeypatch.setattr(campaigns, "BATCH", 2)
    moment = dt.timedelta(microseconds=1)
    assert [campaigns.end_finished(within=moment) for _ in range(4)] == [2, 2, 1, 0]
    assert campaigns.outcomes(campaign.pk).recovered == 5


def test_replays_that_are_under_way_hide_none_that_has_ended(bury, drain, monkeypatch):
    under_way = bury(4)
    broken.clear()
    waiting.update(under_way)
    bury(1)
    broken.clear()
    campaign = replay().campaign
    monkeypatch.setattr(campaigns, "record_success", lambda **_: 0)
    drain()
    testing.pass_time(dt.timedelta(minutes=1))

    monkeypatch.setattr(campaigns, "BATCH", 2)
    assert sum(campaigns.end_finished(within=dt.timedelta(microseconds=1)) for _ in range(3)) == 1
    assert campaigns.outcomes(campaign.pk).recovered == 1


def test_a_replay_that_the_relay_cannot_start_ends_as_failed_again(bury, drain, subscribed):
    """For example, because the workflow was renamed."""
    bury()
    DeadLetter.objects.update(workflow="tests.a_workflow_of_yesterday")
    campaign = replay().campaign
    for _ in range(len(relay.POSTPONEMENTS) + 1):
        relay.drain()
        testing.pass_time(dt.timedelta(hours=1))
        campaigns.end_finished()

    assert campaigns.outcomes(campaign.pk).failed == 1
    assert set(DeadLetter.objects.values_list("resolution", "consumer")) == {
        ("open", work.name),
        ("open", "outbox.relay"),
    }


@pytest.mark.parametrize("task", [tasks.drain, tasks.unpark, tasks.settle_replays])
def test_periodic_tasks_of_the_relay_end_in_time(task, monkeypatch):
    limits = []
    for module, name in ((relay, "drain"), (relay, "unpark"), (campaigns, "end_finished")):
        monkeypatch.setattr(module, name, lambda *, within: limits.append(within))
    task()

    assert limits == [tasks.WITHIN]


def test_the_replay_of_a_task_that_no_longer_exists_ends(bury, drain):
    bury()
    DeadLetter.objects.update(consumer="tests.a_task_of_yesterday")
    broken.clear()
    campaign = replay().campaign
    drain()

    testing.pass_time(dt.timedelta(minutes=1))
    campaigns.end_finished()
    assert campaigns.outcomes(campaign.pk).recovered == 1
