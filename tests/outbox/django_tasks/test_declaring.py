"""Which tasks the backend takes, and what it says of itself."""

from __future__ import annotations

import datetime as dt
import re

import pytest
from asgiref.sync import async_to_sync
from celery import Celery, current_app
from django.apps import apps

from outbox import resilience
from outbox.django_tasks import backend, library, queues, tasks
from outbox.django_tasks.backend import LONGEST_PATH, OutboxBackend
from outbox.django_tasks.library import InvalidTask, Task, task_backends
from tests.outbox.django_tasks import work

pytestmark = pytest.mark.usefixtures("tasks")


class SpecialTask(Task):
    """A task of a backend that somebody has derived."""


class SpecialBackend(OutboxBackend):
    task_class = SpecialTask


def test_the_backend_says_what_it_supports():
    plain = task_backends["default"]

    assert isinstance(plain, OutboxBackend)
    assert isinstance(plain, library.BaseTaskBackend)
    assert (plain.alias, plain.queues) == ("default", {"default", "newsletters", "orders"})
    assert (plain.supports_defer, plain.supports_async_task, plain.supports_get_result) == (True,) * 3
    assert not plain.supports_priority
    assert task_backends["prioritized"].supports_priority


@pytest.mark.parametrize("made", [work.add, work.bare, work.eventually_add, work.whoami])
def test_every_kind_of_decoration_makes_a_task(made):
    assert isinstance(made, Task)
    assert made.get_backend() is task_backends["default"]
    assert made.module_path == f"{made.func.__module__}.{made.name}"


def test_a_task_is_changed_by_making_another_one():
    at = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
    changed = work.add.using(queue_name="newsletters").using(run_after=at).using(backend="anywhere", priority=0)

    assert (changed.queue_name, changed.run_after, changed.backend) == ("newsletters", at, "anywhere")
    assert (work.add.queue_name, work.add.run_after, work.add.backend) == ("default", None, "default")


def test_a_task_can_be_called_without_any_backend():
    assert work.add.call(1, second=2) == 3
    assert work.eventually_add.call(1, second=2) == 3
    assert async_to_sync(work.add.acall)(1) == 1
    assert async_to_sync(work.eventually_add.acall)(1) == 1


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"priority": 1}, "Backend does not support setting priority of tasks."),
        ({"priority": -1}, "Backend does not support setting priority of tasks."),
        ({"priority": 101, "backend": "prioritized"}, "priority must be a whole number between -100 and 100."),
        ({"priority": -101, "backend": "prioritized"}, "priority must be a whole number between -100 and 100."),
        ({"priority": 1.5, "backend": "prioritized"}, "priority must be a whole number between -100 and 100."),
        ({"queue_name": "unknown"}, "Queue 'unknown' is not valid for backend."),
        ({"run_after": dt.datetime(2030, 1, 1)}, "run_after must be an aware datetime."),
    ],
)
def test_what_could_not_be_run_as_it_says_is_refused(options, error):
    with pytest.raises(InvalidTask, match=re.escape(error)):
        work.add.using(**options)


@pytest.mark.parametrize("priority", [-100, 0, 100])
def test_priorities_are_taken_where_queues_stand_behind_them(priority):
    assert work.add.using(backend="prioritized", priority=priority).priority == priority


def test_a_priority_is_refused_in_a_queue_that_has_none(settings):
    options = {"queues": {"default": {0: "jobs"}, "newsletters": "email"}}
    names = ["default", "newsletters"]
    settings.TASKS = {
        "default": {"BACKEND": settings.TASKS["default"]["BACKEND"], "QUEUES": names, "OPTIONS": options}
    }

    assert work.add.using(priority=5).priority == 5
    with pytest.raises(InvalidTask, match="setting priority of tasks in queue 'newsletters'"):
        work.add.using(priority=5, queue_name="newsletters")


def test_without_a_list_of_queues_every_name_is_taken():
    assert work.add.using(backend="anywhere", queue_name="whatever").queue_name == "whatever"


def test_only_functions_of_modules_can_be_tasks():
    def inner():
        return None

    for function in (inner, any, "".upper):
        with pytest.raises(InvalidTask, match="must be defined at a module level"):
            Task(func=function)


def test_a_context_goes_to_functions_that_have_a_place_for_it():
    with pytest.raises(InvalidTask, match="does not have a first argument of 'context'"):
        Task(func=work.plain, takes_context=True)
    assert Task(func=work.plain).takes_context is False


def test_a_path_that_is_too_long_for_a_key_is_refused(monkeypatch):
    monkeypatch.setattr(work.plain, "__qualname__", "p" * LONGEST_PATH)

    with pytest.raises(InvalidTask, match="must not exceed 200 characters"):
        Task(func=work.plain)


@pytest.mark.django_db
@pytest.mark.parametrize("enqueue", [work.add.enqueue, async_to_sync(work.add.aenqueue)], ids=["sync", "async"])
def test_a_task_is_validated_again_when_it_is_enqueued(settings, enqueue):
    settings.TASKS = {"default": {"BACKEND": settings.TASKS["default"]["BACKEND"], "QUEUES": ["other"]}}

    with pytest.raises(InvalidTask, match="Queue 'default' is not valid for backend"):
        enqueue(1)


def test_a_backend_can_be_derived_with_tasks_of_its_own(settings):
    settings.TASKS = {"default": {"BACKEND": f"{__name__}.SpecialBackend", "OPTIONS": {"theirs": 1}}}

    assert type(library.task_backends["default"].task_class(func=work.plain)) is SpecialTask
    assert library.task_backends["default"].options == {"theirs": 1}


def test_the_backends_have_no_complaints():
    assert [problem for backend in task_backends.all() for problem in backend.check()] == []


def test_an_app_that_is_not_installed_is_an_error(monkeypatch):
    monkeypatch.setattr(apps, "is_installed", lambda name: name != "outbox")

    [problem] = task_backends["default"].check()
    assert (problem.id, problem.hint) == ("outbox.E002", "Add 'outbox' to INSTALLED_APPS.")


def test_a_queue_that_celery_does_not_know_is_an_error(settings, monkeypatch):
    settings.TASKS["default"]["OPTIONS"] = {
        "queues": {"newsletters": "nowhere", "default": {0: "jobs", 9: "void"}}
    }
    settings.TASKS = dict(settings.TASKS)
    celery = Celery(
        task_queues=list(current_app.amqp.queues.values()),
        task_create_missing_queues=False,
        set_as_current=False,
    )
    monkeypatch.setattr(backend, "current_app", celery)

    problems = task_backends["default"].check()
    assert [problem.id for problem in problems] == ["outbox.E003"] * 2
    assert [re.search("Celery queue '(\\w+)'", problem.msg)[1] for problem in problems] == ["nowhere", "void"]

    celery.conf.task_create_missing_queues = True
    assert task_backends["default"].check() == []


@pytest.mark.parametrize(
    ("queue_name", "priority", "celery_queue"),
    [
        ("default", 0, ""),
        ("newsletters", 0, "email"),
        ("orders", 0, "orders"),
        ("urgent", 100, "high"),
        ("urgent", 50, "high"),
        ("urgent", 49, "low"),
        ("urgent", -50, "low"),
    ],
)
def test_a_queue_name_and_a_priority_say_which_celery_queue(queue_name, priority, celery_queue):
    mapped = {"newsletters": "email", "urgent": {50: "high", 0: "low"}}

    assert queues.celery_queue(mapped, queue_name, priority) == celery_queue


IMPATIENT = resilience.RetryPolicy(attempts=2, redelivery_waits=[])


def test_the_policy_of_tasks_is_a_setting(settings):
    assert resilience.task_policy() == tasks.run.policy == resilience.DEFAULT_TASK_POLICY

    settings.OUTBOX_TASK_POLICY = f"{__name__}.IMPATIENT"
    assert resilience.task_policy() is IMPATIENT
    options = tasks.options()
    assert (options["policy"], options["max_retries"], options["autoretry_for"]) == (IMPATIENT, 1, (Exception,))
