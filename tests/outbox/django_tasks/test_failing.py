"""A task that fails for good is a dead letter like any other, and its result follows what becomes of that."""

from __future__ import annotations

import datetime as dt

import pytest
from django.contrib.auth.models import User
from django.urls import reverse

from outbox.dead_letters import resolving
from outbox.django_tasks import results
from outbox.django_tasks.library import TaskResultStatus, task_backends, task_finished
from outbox.django_tasks.tasks import run
from outbox.models import Attempt, DeadLetter, EnqueuedTask
from outbox.resilience import Outage, Permanent
from tests.outbox.django_tasks import work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("tasks")]

READY, SUCCESSFUL, FAILED = TaskResultStatus.READY, TaskResultStatus.SUCCESSFUL, TaskResultStatus.FAILED
TRIES = run.policy.attempts * (1 + len(run.policy.redelivery_waits))


@pytest.fixture
def failed(drain):
    """The result of a task that was given up."""
    work.TROUBLES.extend([ValueError(f"attempt {number}") for number in range(TRIES)])
    result = work.fragile.enqueue()
    drain(redeliveries=True)
    result.refresh()
    return result


def test_a_task_that_fails_for_good_is_a_dead_letter_after_the_attempts_of_the_policy(failed):
    assert (failed.status, failed.is_finished, failed.attempts) == (FAILED, True, TRIES)
    assert failed.started_at < failed.last_attempted_at <= failed.finished_at
    with pytest.raises(ValueError, match="Task failed"):
        failed.return_value  # noqa: B018
    assert [error.exception_class for error in failed.errors] == [ValueError] * TRIES
    assert failed.errors[-1].traceback.endswith(f"ValueError: attempt {TRIES - 1}\n")

    [dead_letter] = DeadLetter.objects.all()
    assert (dead_letter.consumer, dead_letter.key) == ("outbox.django_tasks.run", work.fragile.module_path)
    assert (dead_letter.error_class, dead_letter.attempts) == ("ValueError", TRIES)
    assert dead_letter.payload == {"task": "outbox.django_tasks.run", "kwargs": {"message_id": failed.id}}
    outcomes = list(Attempt.objects.order_by("pk").values_list("outcome", flat=True))
    assert (outcomes.count("retried"), outcomes.count("postponed"), outcomes[-1]) == (10, 4, "buried")


def test_a_replay_makes_the_result_ready_and_then_successful(failed, drain):
    resolving.replay(DeadLetter.objects.all(), by="me", reason="it works now")
    failed.refresh()
    assert (failed.status, failed.is_finished) == (READY, False)

    drain()
    failed.refresh()
    assert (failed.status, failed.return_value, failed.attempts) == (SUCCESSFUL, TRIES + 1, TRIES + 1)
    assert DeadLetter.objects.get().resolution == DeadLetter.Resolution.RECOVERED


def test_a_replay_that_fails_again_makes_the_result_failed_again(failed, drain):
    before = failed.finished_at
    work.TROUBLES.extend([Permanent("still")])
    resolving.replay(DeadLetter.objects.all(), by="me", reason="it works now")
    drain(redeliveries=True)

    failed.refresh()
    assert (failed.status, failed.attempts) == (FAILED, TRIES + 1)
    assert failed.finished_at > before
    assert failed.errors[-1].exception_class is Permanent


def test_a_discarded_task_has_failed(failed, drain):
    resolving.discard(DeadLetter.objects.all(), by="me", reason="nobody needs it")
    drain(redeliveries=True)

    failed.refresh()
    assert (failed.status, failed.attempts) == (FAILED, TRIES)


def test_a_signal_says_that_a_task_has_failed(drain):
    received = []

    def receive(sender, task_result, **_):
        received.append((sender, task_result.status, task_result.id))

    task_finished.connect(receive)
    try:
        work.TROUBLES.append(Permanent("no such thing"))
        result = work.fragile.enqueue()
        drain()
    finally:
        task_finished.disconnect(receive)

    assert received == [(type(task_backends["default"]), FAILED, result.id)]


def test_an_error_that_no_attempt_can_mend_is_given_up_at_once(drain):
    work.TROUBLES.append(Permanent("no such thing"))
    result = work.fragile.enqueue()
    drain()

    result.refresh()
    assert (result.status, result.attempts) == (FAILED, 1)
    assert [error.exception_class for error in result.errors] == [Permanent]


def test_an_outage_spends_no_attempt(drain):
    work.TROUBLES.extend([Outage("their server is down")] * 3)
    result = work.fragile.enqueue()
    drain()
    result.refresh()
    assert (result.status, result.errors) == (READY, [])

    drain(redeliveries=True)
    result.refresh()
    assert (result.status, result.errors) == (SUCCESSFUL, [])
    assert not DeadLetter.objects.exists()


@pytest.mark.parametrize(("what", "error"), [("object", TypeError), ("set", TypeError), ("nan", ValueError)])
def test_a_return_value_that_is_no_json_is_given_up_at_once(drain, what, error):
    result = work.give.enqueue(what)
    drain(redeliveries=True)

    result.refresh()
    assert (result.status, result.attempts, work.CALLS) == (FAILED, 1, [what])
    assert [each.exception_class for each in result.errors] == [error]
    assert DeadLetter.objects.get().error_class == "NotStorable"


class Strange(Exception):
    """Its message is an exception, and cannot be written."""

    def __str__(self):
        raise RuntimeError("no words")


@pytest.mark.parametrize("trouble", [ValueError(ValueError("inner")), Strange(), ValueError("\x00 \ud800")])
def test_a_strange_exception_is_kept_as_far_as_it_can_be(drain, trouble):
    work.TROUBLES.extend([trouble] * TRIES)
    result = work.fragile.enqueue()
    drain(redeliveries=True)

    result.refresh()
    assert result.status == FAILED
    assert {error.exception_class for error in result.errors} == {type(trouble)}
    assert type(trouble).__name__ in result.errors[-1].traceback


def test_what_the_relay_cannot_send_has_failed_without_an_attempt(drain, settings):
    settings.TASKS["anywhere"]["OPTIONS"] = {"queues": {"newsletters": None}}
    result = work.add.using(backend="anywhere", queue_name="newsletters").enqueue(1)
    for _ in range(6):
        drain(redeliveries=True)

    result.refresh()
    assert (result.status, result.attempts, result.started_at) == (FAILED, 0, None)
    [error] = result.errors
    assert error.exception_class is results.GivenUp
    assert "TypeError: " in error.traceback

    settings.TASKS["anywhere"]["OPTIONS"] = {"queues": {"newsletters": "jobs"}}
    resolving.replay(DeadLetter.objects.all(), by="me", reason="the queue is mapped now")
    drain()
    assert task_backends["anywhere"].get_result(result.id).status == SUCCESSFUL


def test_a_task_for_a_queue_that_celery_does_not_know_waits_until_there_is_one(drain, settings):
    result = work.add.using(backend="anywhere", queue_name="nowhere").enqueue(1)
    drain(redeliveries=True)
    result.refresh()
    assert (result.status, result.attempts, DeadLetter.objects.count()) == (READY, 0, 0)

    settings.TASKS["anywhere"]["OPTIONS"] = {"queues": {"nowhere": "jobs"}}
    drain(redeliveries=True)
    result.refresh()
    assert result.status == SUCCESSFUL


@pytest.mark.parametrize(
    ("path", "error"),
    [("tests.outbox.django_tasks.work.gone", "ImportError"), ("no.such.module", "ModuleNotFoundError"),
     ("subprocess.run", "NotATask")],
)  # fmt: skip
def test_a_task_whose_code_is_gone_is_kept(drain, path, error):
    result = work.add.enqueue(1)
    EnqueuedTask.objects.update(task=path)
    drain(redeliveries=True)

    assert DeadLetter.objects.get().error_class == error
    with pytest.raises((ImportError, results.NotATask)):
        task_backends["default"].get_result(result.id)

    EnqueuedTask.objects.update(task=work.add.module_path)
    resolving.replay(DeadLetter.objects.all(), by="me", reason="deployed")
    drain()
    assert work.add.get_result(result.id).return_value == 1


def test_a_task_whose_row_is_gone_is_a_dead_letter_that_says_so(drain):
    work.add.enqueue(1)
    EnqueuedTask.objects.all().delete()
    drain(redeliveries=True)

    assert DeadLetter.objects.get().error_class == "NoSuchTask"


def test_the_admin_shows_the_dead_letter_and_the_task_without_its_arguments(failed, client):
    client.force_login(User.objects.create_superuser("root"))
    EnqueuedTask.objects.filter(pk=failed.id).update(args=["ada@example.com"])
    dead_letter = DeadLetter.objects.get()

    listed = client.get(reverse("admin:outbox_deadletter_changelist"))
    shown = client.get(reverse("admin:outbox_deadletter_change", args=[dead_letter.pk]))
    assert (listed.status_code, shown.status_code) == (200, 200)
    assert work.fragile.module_path in listed.text
    assert "ValueError" in shown.text

    tasks = client.get(reverse("admin:outbox_enqueuedtask_changelist"), {"q": work.fragile.module_path})
    task = client.get(reverse("admin:outbox_enqueuedtask_change", args=[failed.id]))
    assert (tasks.status_code, task.status_code) == (200, 200)
    assert "failed" in tasks.text
    assert reverse("admin:outbox_deadletter_change", args=[dead_letter.pk]) in task.text
    assert f"ValueError: attempt {TRIES - 1}" in task.text or "[hidden]" in task.text
    assert "ada@example.com" not in tasks.text + task.text


def test_a_deferred_task_keeps_its_time_in_the_result():
    at = dt.datetime(2031, 1, 1, tzinfo=dt.UTC)
    result = work.add.using(run_after=at, queue_name="newsletters").enqueue(1)

    found = work.add.get_result(result.id)
    assert (found.task.run_after, found.task.queue_name, found.task.priority) == (at, "newsletters", 0)
    assert found == result
