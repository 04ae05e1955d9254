"""The message that kills its workers is found, and messages that ran at the same time are not blamed."""

from __future__ import annotations

import datetime as dt
import multiprocessing
import tempfile
import uuid

import pytest

from outbox import testing
from outbox.models import Attempt
from outbox.worker import company, losses, unreadable
from outbox.worker.company import Pool
from outbox.worker.losses import CrashLoop, LostAlone, LostTogether, NotAlone, SuspectLost, Watch, WorkerLost

pytestmark = pytest.mark.django_db

CONSUMER = "tests.consumer"


@pytest.fixture(autouse=True)
def pool(monkeypatch):
    monkeypatch.setattr(losses, "pool", Pool())
    monkeypatch.setattr(company, "PATIENCE", 0)


def die_together(*message_ids):
    """A process dies while all of these are running."""
    watches = [Watch(CONSUMER, each, delivery="", worker="w") for each in message_ids]
    for watch in watches:
        watch.suspect()
    losses.pool = Pool()


def start(message_id):
    watch = Watch(CONSUMER, message_id, delivery="", worker="w")
    watch.suspect()
    return watch


def kinds(message_id):
    return [each.error_class for each in Attempt.objects.filter(message_id=message_id).order_by("pk")]


@pytest.fixture
def poison():
    return str(uuid.uuid4())


@pytest.fixture
def innocent():
    return str(uuid.uuid4())


def test_two_losses_alone_bury_a_message_although_nobody_saw_them(poison):
    for _ in range(3):
        die_together(poison)

    with pytest.raises(CrashLoop):
        start(poison)
    assert kinds(poison) == [LostTogether.__name__, *[LostAlone.__name__] * 2]


def test_a_kill_from_outside_blames_no_message_that_was_running_alone(innocent):
    die_together(innocent)
    die_together(innocent)
    start(innocent).survived(done=True)
    assert not Attempt.objects.filter(message_id=innocent, outcome="buried").exists()


def test_deaths_seen_by_the_main_process_are_counted_once(poison):
    unreadable.record_death(CONSUMER, poison, delivery="1", worker="w", error="signal 9")
    watch = start(poison)
    unreadable.record_death(CONSUMER, poison, delivery=watch.delivery, worker="w", error="signal 9")
    losses.pool = Pool()
    watch = start(poison)
    with pytest.raises(CrashLoop):
        unreadable.record_death(CONSUMER, poison, delivery=watch.delivery, worker="w", error="signal 9")
    assert kinds(poison) == [WorkerLost.__name__, *[SuspectLost.__name__] * 2]


def test_the_first_loss_counts_although_only_the_third_was_seen(poison):
    die_together(poison)
    watch = start(poison)
    with pytest.raises(CrashLoop):
        unreadable.record_death(CONSUMER, poison, delivery=watch.delivery, worker="w", error="signal 9")
    assert kinds(poison) == [LostTogether.__name__, SuspectLost.__name__]


def test_a_child_that_dies_before_it_records_anything_is_counted(poison):
    for delivery in "12":
        unreadable.record_death(CONSUMER, poison, delivery=delivery, worker="w", error="signal 11")
    with pytest.raises(CrashLoop):
        unreadable.record_death(CONSUMER, poison, delivery="3", worker="w", error="signal 11")


def test_an_innocent_message_runs_alone_and_is_cleared(poison, innocent):
    die_together(poison, innocent)
    first = start(poison)
    with pytest.raises(NotAlone):
        start(innocent)
    losses.pool = Pool()  # the worker dies again
    die_together(poison)
    with pytest.raises(CrashLoop):
        start(poison)

    losses.pool = Pool()
    assert first.is_suspected
    start(innocent).survived(done=True)
    assert kinds(innocent) == []


def test_a_suspected_message_waits_for_other_redelivered_messages(poison, innocent):
    die_together(poison)
    beside = start(innocent)
    with pytest.raises(NotAlone):
        start(poison)

    beside.survived(done=True)
    beside.leave()
    start(poison)


def test_a_delivery_that_found_nothing_to_do_proves_nothing(poison):
    die_together(poison)
    watch = start(poison)
    watch.survived(done=False)
    watch.leave()

    assert kinds(poison) == [LostTogether.__name__]


def test_a_broker_that_restarts_again_and_again_gives_nothing_up(innocent):
    for _ in range(10):
        watch = start(innocent)
        watch.survived()
        watch.leave()
    assert kinds(innocent) == []


def test_losses_of_earlier_incidents_do_not_count(poison):
    for _ in range(5):
        die_together(poison)
        testing.pass_time(losses.LOSSES_COUNT_FOR + dt.timedelta(minutes=1))
    start(poison)


def _enter(pool, alone, entered, leave):
    entered.put(enter(pool, alone=alone))
    leave.wait(30)


def enter(pool, *, alone):
    return pool.enter_alone("it", wait=0) if alone else pool.enter("it", wait=0) and pool.suspect("it")


@pytest.mark.parametrize(
    ("here", "there", "enters"), [(True, False, False), (False, True, False), (False, False, True)]
)
def test_the_processes_of_a_pool_share_its_lock(here, there, enters):
    forked = multiprocessing.get_context("fork")
    first, second = Pool(), Pool()  # a child is forked before its parent has taken anything
    entered, leave = forked.Queue(), forked.Event()
    with tempfile.TemporaryFile() as file:
        first.share(file)
        second.share(file)
        child = forked.Process(target=_enter, args=[second, there, entered, leave])
        assert enter(first, alone=here)
        child.start()
        assert entered.get(timeout=30) is enters
        leave.set()
        child.join()


def test_a_killed_process_releases_its_lock():
    forked = multiprocessing.get_context("fork")
    shared, entered, leave = Pool(), forked.Queue(), forked.Event()
    with tempfile.TemporaryFile() as file:
        shared.share(file)
        child = forked.Process(target=_enter, args=[shared, True, entered, leave])
        child.start()
        assert entered.get(timeout=30)
        assert not enter(shared, alone=True)
        child.kill()
        child.join()
        assert shared.enter_alone("it", wait=0)
