"""A task is run by a Celery task, and its result is kept."""

from __future__ import annotations

import logging

import pytest
from asgiref.sync import async_to_sync

from outbox.django_tasks import execution
from outbox.django_tasks.backend import OutboxBackend
from outbox.django_tasks.library import (
    TaskContext,
    TaskResultStatus,
    task_backends,
    task_finished,
    task_started,
)
from outbox.models import EnqueuedTask, OutboxMessage
from outbox.relay import relay
from outbox.resilience import Transient
from tests.outbox.django_tasks import work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("tasks")]

READY, RUNNING, SUCCESSFUL, FAILED = (
    TaskResultStatus.READY,
    TaskResultStatus.RUNNING,
    TaskResultStatus.SUCCESSFUL,
    TaskResultStatus.FAILED,
)


@pytest.fixture
def signals():
    """What is signalled of tasks in workers: the signal, the status and the number of attempts."""
    received = []

    def started(sender, task_result, **_):
        received.append(("started", sender, task_result.status, task_result.attempts))

    def finished(sender, task_result, **_):
        received.append(("finished", sender, task_result.status, task_result.attempts))

    task_started.connect(started)
    task_finished.connect(finished)
    yield received
    task_started.disconnect(started)
    task_finished.disconnect(finished)


@pytest.mark.parametrize("task", [work.add, work.eventually_add])
@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_task_that_has_run_is_successful(drain, task, how):
    result = task.enqueue(1, second=2)
    drain()

    result.refresh() if how == "sync" else async_to_sync(result.arefresh)()
    assert (result.status, result.is_finished, result.return_value) == (SUCCESSFUL, True, 3)
    assert result.enqueued_at <= result.started_at == result.last_attempted_at <= result.finished_at
    assert (result.attempts, result.worker_ids, result.errors) == (1, ["test@drain"], [])
    assert (result.args, result.kwargs) == ([1], {"second": 2})


def test_a_task_that_returns_nothing_has_returned_nothing(drain):
    result = work.bare.enqueue()
    drain()

    result.refresh()
    assert (result.status, result.return_value) == (SUCCESSFUL, None)


def test_a_return_value_becomes_plain_json(drain):
    result = work.give.enqueue("tuple")
    drain()

    assert work.give.get_result(result.id).return_value == [1, 2]


def test_a_task_may_know_its_context(drain):
    result = work.whoami.enqueue(more=["x"])
    drain()

    [seen] = work.CALLS
    assert isinstance(seen, TaskContext)
    assert (seen.attempt, seen.task_result.status, seen.task_result.id) == (1, RUNNING, result.id)
    assert work.whoami.get_result(result.id).return_value == {"id": result.id, "attempt": 1, "more": ["x"]}


def test_the_result_is_running_while_the_task_runs(drain, monkeypatch):
    seen = []
    task = work.whoami.using(queue_name="orders")
    monkeypatch.setattr(work, "CALLS", Looking(seen))
    result = task.enqueue()
    drain()

    [during] = seen
    assert (during.status, during.attempts, during.finished_at) == (RUNNING, 1, None)
    assert during.task.queue_name == "orders"
    assert task_backends["default"].get_result(result.id).status == SUCCESSFUL


class Looking(list):
    """Looks up the result of each call."""

    def __init__(self, seen):
        super().__init__()
        self._seen = seen

    def append(self, context):
        self._seen.append(task_backends["default"].get_result(context.task_result.id))


@pytest.mark.parametrize("trouble", [ValueError("once"), Transient("once"), KeyError("once"), OSError("once")])
def test_whatever_a_task_raises_is_worth_another_attempt(drain, trouble):
    work.TROUBLES.append(trouble)
    result = work.fragile.enqueue()
    drain(redeliveries=True)

    result.refresh()
    assert (result.status, result.return_value, result.attempts) == (SUCCESSFUL, 2, 2)
    assert result.started_at < result.last_attempted_at <= result.finished_at
    [error] = result.errors
    assert error.exception_class is type(trouble)
    assert error.traceback.rstrip().endswith("once") or "KeyError: 'once'" in error.traceback
    assert work.CALLS == [1, 2]


def test_between_two_attempts_the_result_is_ready_again(drain, monkeypatch):
    work.TROUBLES.extend([ValueError("again")] * 3)
    result = work.fragile.enqueue()
    drain()

    result.refresh()
    assert (result.status, result.attempts, len(result.errors)) == (READY, 3, 3)
    assert result.is_finished is False


def test_a_copy_of_a_task_that_has_succeeded_is_skipped(drain):
    result = work.add.enqueue(1)
    drain()
    relay.start(OutboxMessage.objects.get(pk=result.id))
    drain()

    result.refresh()
    assert (work.CALLS, result.attempts, result.status) == ([(1, 0)], 1, SUCCESSFUL)


def test_a_copy_that_fails_does_not_undo_a_success(drain):
    result = work.fragile.enqueue()

    def succeed_meanwhile(*_):
        execution.records.succeed(result.id, "the other copy")
        raise ValueError("too late")

    work.fragile.func.__globals__["CALLS"] = Calling(succeed_meanwhile)
    try:
        drain(redeliveries=True)
    finally:
        work.fragile.func.__globals__["CALLS"] = work.CALLS = []
    result.refresh()
    assert (result.status, result.return_value, result.errors) == (SUCCESSFUL, "the other copy", [])


class Calling(list):
    def __init__(self, call):
        super().__init__()
        self.append = call


def test_signals_say_when_a_task_starts_and_when_it_has_finished(drain, signals):
    work.TROUBLES.append(ValueError("once"))
    work.fragile.enqueue()
    drain()

    assert signals == [
        ("started", OutboxBackend, RUNNING, 1),
        ("started", OutboxBackend, RUNNING, 2),
        ("finished", OutboxBackend, SUCCESSFUL, 2),
    ]


def test_a_receiver_that_fails_does_no_harm(drain, signals):
    def fail(**_):
        raise RuntimeError("a receiver")

    task_started.connect(fail)
    task_finished.connect(fail)
    try:
        result = work.add.enqueue(1)
        drain()
    finally:
        task_started.disconnect(fail)
        task_finished.disconnect(fail)

    result.refresh()
    assert (result.status, result.attempts, work.CALLS) == (SUCCESSFUL, 1, [(1, 0)])


def test_django_logs_what_becomes_of_a_task(drain, caplog):
    with caplog.at_level(logging.DEBUG, logger=work.LOGGER):
        result = work.add.enqueue(1)
        drain()

    lines = [
        line for record in caplog.records if result.id in (line := record.getMessage()) and "Task id" in line
    ]
    assert [line.rpartition(" ")[2] for line in lines] == [
        "backend=default",
        "state=RUNNING",
        "state=SUCCESSFUL",
    ]


def test_a_task_that_ends_the_process_has_failed_and_its_worker_goes_on(drain):
    work.TROUBLES.append(SystemExit(3))
    result = work.fragile.enqueue()
    drain()

    result.refresh()
    assert (result.status, result.attempts) == (SUCCESSFUL, 2)
    assert [error.exception_class for error in result.errors] == [SystemExit]


@pytest.mark.parametrize("ended", [KeyboardInterrupt(), SystemExit(-241)], ids=["interrupted", "terminated"])
def test_what_ends_the_worker_is_no_failure_of_the_task(ended):
    work.TROUBLES.append(ended)
    result = work.fragile.enqueue()

    with pytest.raises(type(ended)):
        execution.run(result.id, worker="here")
    result.refresh()
    assert (result.status, result.errors) == (RUNNING, [])


def test_what_a_task_enqueues_says_what_caused_it(drain):
    result = work.enqueue_another.enqueue(7)
    drain()

    result.refresh()
    caused = OutboxMessage.objects.get(pk=result.return_value)
    assert caused.causation_id == result.id
    assert caused.correlation_id == OutboxMessage.objects.get(pk=result.id).correlation_id
    assert work.CALLS == [(7, 0)]


def test_the_row_of_a_task_bounds_its_errors(drain):
    result = work.add.enqueue(1)
    for number in range(execution.records.MOST_ERRORS + 5):
        execution.records.fail(result.id, ValueError(f"number {number}"), "retried")

    errors = EnqueuedTask.objects.get(pk=result.id).errors
    assert len(errors) == execution.records.MOST_ERRORS
    assert ("number 5" in errors[0]["traceback"], "number 24" in errors[-1]["traceback"]) == (True, True)
