"""Whatever the age and number of ticks, the work is done once per interval, and a row proves when."""

from __future__ import annotations

import datetime as dt
import threading

import pytest
from celery import Celery, current_app
from django.db import connection

from outbox import periodic, publisher, testing
from outbox.models import PeriodicRun
from tests.outbox.events import Happened
from tests.properties.clocks import Clock

SWEEP = "orders.tasks.sweep"
SECOND = dt.timedelta(seconds=1)
DONE = []


app = Celery("periodic", set_as_current=False)


@app.task(base=periodic.PeriodicTask, every=10 * SECOND, name="tests.periodic", shared=False)
def note(*, fails=False, **_):
    DONE.append(1)
    if fails:
        raise ValueError("the shelf is gone")


@pytest.fixture(autouse=True)
def _known(db, monkeypatch):
    DONE.clear()
    monkeypatch.setattr(periodic, "tasks", lambda: [note, current_app.tasks[SWEEP]])


def tick(**arguments):
    """Run a task as a worker does."""
    note.push_request(called_directly=False)
    try:
        note(**arguments)
    finally:
        note.pop_request()


def age(seconds, *, columns="last_began_at, last_ended_at"):
    moved = ", ".join(f"{name} = {name} - make_interval(secs => {seconds})" for name in columns.split(", "))
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE outbox_periodicrun SET {moved}")


def standing(name="tests.periodic"):
    return next(one for one in periodic.standings() if one.name == name)


def test_of_many_ticks_one_does_the_work(django_assert_num_queries):
    tick()
    for _ in range(100):
        with django_assert_num_queries(1):
            tick()
    assert len(DONE) == 1

    age(5)
    tick()
    tick()
    assert len(DONE) == 2


def test_a_long_run_is_not_followed_at_once_by_the_tick_that_waited_for_it():
    tick()
    age(30, columns="last_began_at")
    tick()
    assert len(DONE) == 1


def test_a_tick_does_its_work_after_the_clock_of_the_database_went_back():
    tick()
    age(-86_400)
    assert standing().is_late
    tick()
    assert (len(DONE), standing().is_late) == (2, False)


@pytest.mark.parametrize("seconds", [3, 3_600, 86_400])
def test_workers_whose_clocks_differ_do_the_work_of_one_moment_once(monkeypatch, seconds):
    clock = Clock(monkeypatch)
    for ahead in (seconds, -seconds, 0):
        clock.put(ahead * SECOND)
        tick()
    assert len(DONE) == 1
    assert standing().seconds_ago == pytest.approx(0, abs=5)
    assert not standing().is_late

    for number, ahead in enumerate((-seconds, seconds, 0), start=2):
        age(10)
        clock.put(ahead * SECOND)
        tick()
        assert len(DONE) == number


def test_a_call_of_the_function_itself_always_runs():
    for _ in range(3):
        note()
    assert len(DONE) == 3


def test_at_the_same_moment_one_of_many_begins(transactional_db):
    began, ready = [], threading.Barrier(8)

    def begin():
        with connection.cursor():
            ready.wait(20)
        began.append(periodic.begin(SWEEP, every=10 * SECOND))
        connection.close()

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(began) == [False] * 7 + [True]


def test_the_row_has_the_time_of_the_last_run_and_the_lateness():
    tick()
    age(60)
    assert (standing().seconds_ago, standing().is_late) == (pytest.approx(60, abs=5), False)

    age(30)
    assert standing().is_late
    assert str(standing()).startswith("done 9")
    assert "late: it is due every 10 s" in str(standing())


def test_a_failed_task_counts_as_not_done_and_its_row_has_the_error():
    with pytest.raises(ValueError, match="shelf"):
        tick(fails=True)
    assert str(standing()) == "never done, fails with ValueError: the shelf is gone"

    age(90, columns="first_began_at, last_began_at")
    assert standing().is_late
    tick()
    assert (standing().is_late, standing().error) == (False, "")


def test_a_task_that_never_ran_is_late_once_messages_are_old_enough_to_have_needed_it():
    assert not standing(SWEEP).is_late

    publisher.publish(Happened())
    assert not standing(SWEEP).is_late
    with connection.cursor() as cursor:
        cursor.execute("UPDATE outbox_outboxmessage SET created_at = created_at - interval '63 seconds'")
    assert standing(SWEEP).is_late


def test_after_an_upgrade_a_daily_task_is_not_late_before_its_time(monkeypatch):
    monkeypatch.setattr(note, "every", dt.timedelta(days=1))
    publisher.publish(Happened())
    with connection.cursor() as cursor:
        cursor.execute("UPDATE outbox_outboxmessage SET created_at = created_at - interval '20 days'")
    periodic.begin(SWEEP, every=SECOND)
    assert not standing().is_late

    PeriodicRun.objects.update(first_began_at=PeriodicRun.objects.get().first_began_at - dt.timedelta(days=3))
    assert standing().is_late


def test_tests_may_record_all_tasks_as_done():
    testing.do_periodic_tasks()
    assert not any(one.is_late or one.seconds_ago is None for one in periodic.standings())
