"""Values of celeryconfig that must agree with each other, although each one alone looks right."""

from __future__ import annotations

import datetime as dt
import fnmatch
from concurrent.futures import ThreadPoolExecutor

import celery.beat
import pytest
from celery import current_app
from kombu import pools

import celeryconfig
from notifications.services import LEASE
from orderflow.celery import app
from orderflow.stack.sizing import MOST_THREADS
from outbox import periodic
from outbox.consumer import RETURNED_OFTEN, ConsumerTask
from outbox.worker import beat
from outbox.worker.losses import MOST_LOSSES

OUR_TASKS = [name for name in app.tasks if name.split(".")[0] in ("orders", "outbox", "notifications")]
CONSUMERS = [task for task in app.tasks.values() if isinstance(task, ConsumerTask)]


@pytest.mark.parametrize("task", OUR_TASKS)
def test_every_task_has_a_queue_that_exists(task):
    pattern = next(pattern for pattern in celeryconfig.task_routes if fnmatch.fnmatch(task, pattern))
    assert celeryconfig.task_routes[pattern]["queue"] in celeryconfig.QUEUES


def test_a_retried_task_without_a_route_finds_a_queue():
    assert celeryconfig.task_default_queue in celeryconfig.QUEUES
    assert celeryconfig.task_create_missing_queues is False


@pytest.mark.parametrize("task", CONSUMERS, ids=lambda task: task.name)
def test_no_countdown_is_shorter_than_rabbitmq_can_delay(task):
    assert min(task.policy.quick_wait(each, whole_seconds=True) for each in range(10) for _ in range(20)) >= 1


@pytest.mark.parametrize("task", CONSUMERS, ids=lambda task: task.name)
def test_a_step_keeps_no_result_and_is_acknowledged_when_it_is_done(task):
    assert (task.ignore_result, task.acks_late, task.reject_on_worker_lost) == (True, True, True)


@pytest.mark.parametrize("name", celeryconfig.beat_schedule)
def test_ticks_have_no_expiry_and_periodic_tasks_have_the_interval_of_the_schedule(name):
    entry = celeryconfig.beat_schedule[name]
    assert not {"expires", "eta", "countdown"} & set(entry["options"])
    assert entry["options"]["queue"] in celeryconfig.QUEUES

    task, schedule = current_app.tasks[entry["task"]], entry["schedule"]
    spacing = dt.timedelta(seconds=schedule) if isinstance(schedule, float) else interval(schedule)
    assert isinstance(task, periodic.PeriodicTask)
    assert task.every == spacing


def interval(schedule):
    return dt.timedelta(days=1) / (len(schedule.hour) * len(schedule.minute))


def test_every_periodic_task_is_on_the_schedule():
    scheduled = {entry["task"] for entry in celeryconfig.beat_schedule.values()}
    assert {task.name for task in periodic.tasks()} == scheduled


def test_beat_keeps_its_schedule_in_memory():
    assert issubclass(beat.Scheduler, celery.beat.Scheduler)
    assert celeryconfig.beat_scheduler == f"{beat.__name__}:{beat.Scheduler.__name__}"


def test_time_limits_are_in_the_right_order():
    assert celeryconfig.SOFT_TIME_LIMIT < celeryconfig.TIME_LIMIT < LEASE.total_seconds()
    assert MOST_LOSSES < celeryconfig.DELIVERY_LIMIT
    assert RETURNED_OFTEN < celeryconfig.DELIVERY_LIMIT


def test_each_thread_can_publish_at_the_same_time():
    """Otherwise tasks would wait for each other while the broker hangs, until their time limits."""
    pools.set_limit(current_app.conf.broker_pool_limit)  # kombu's: that of the application used last
    assert current_app.pool.limit == celeryconfig.broker_pool_limit >= MOST_THREADS
    assert current_app.producer_pool.limit >= MOST_THREADS


def test_every_thread_works_with_the_projects_application():
    """Celery's current application belongs to a thread; others would get one with connections of its own."""
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: current_app.main).result() == "orderflow"
