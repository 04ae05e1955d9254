"""A task is enqueued with the transaction, and with nothing of it in the broker but an id."""

from __future__ import annotations

import datetime as dt
import json
import logging
import uuid

import pytest
from asgiref.sync import async_to_sync
from celery import current_app
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from outbox import context, testing
from outbox.database import clock
from outbox.django_tasks.backend import OutboxBackend
from outbox.django_tasks.library import TaskResultStatus, task_enqueued
from outbox.models import EnqueuedTask, OutboxMessage
from outbox.relay import relay
from tests.outbox.django_tasks import work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("tasks")]


class RolledBack(Exception):
    pass


def waiting(queue):
    """The messages in one of the broker's queues, as text, which are taken off it."""
    found = []
    with current_app.connection_for_read() as link:
        bound = current_app.amqp.queues[queue](link.default_channel)
        while message := bound.get():
            found.append(json.dumps([message.headers, message.decode()], default=str))
            message.ack()
    return found


@pytest.mark.parametrize("task", [work.add, work.eventually_add])
@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_task_that_was_enqueued_is_ready(task, how):
    enqueue = task.enqueue if how == "sync" else async_to_sync(task.aenqueue)
    result = enqueue(1, second=2)

    assert (result.status, result.is_finished, result.attempts) == (TaskResultStatus.READY, False, 0)
    assert (result.started_at, result.last_attempted_at, result.finished_at) == (None, None, None)
    assert (result.task, result.args, result.kwargs) == (task, [1], {"second": 2})
    assert (result.backend, result.errors, result.worker_ids) == ("default", [], [])
    assert abs(result.enqueued_at - clock.now()) < dt.timedelta(minutes=1)
    assert uuid.UUID(result.id).version == 7
    with pytest.raises(ValueError, match="Task has not finished yet"):
        result.return_value  # noqa: B018


def test_a_task_costs_one_statement():
    with transaction.atomic(), CaptureQueriesContext(connection) as captured:
        work.add.enqueue(1)

    assert len(captured) == 1


def test_the_outbox_has_a_message_of_it_without_its_arguments():
    with context.bind(context.Context(correlation_id="request-1", causation_id="cause-1")):
        result = work.add.enqueue("their address", 1)

    message = OutboxMessage.objects.get(pk=result.id)
    assert (message.event_name, message.key) == ("outbox.task_enqueued", work.add.module_path)
    assert (message.correlation_id, message.causation_id) == ("request-1", "cause-1")
    assert "their address" not in json.dumps(message.payload)


def test_what_is_rolled_back_was_never_enqueued(drain):
    with pytest.raises(RolledBack), transaction.atomic():
        work.add.enqueue(1)
        raise RolledBack

    assert drain() == []
    assert (OutboxMessage.objects.count(), EnqueuedTask.objects.count(), work.CALLS) == (0, 0, [])


def test_what_is_committed_is_run(drain):
    with transaction.atomic():
        work.add.enqueue(1, second=2)
        assert work.CALLS == []
    work.add.enqueue(3)

    assert drain() == ["outbox.django_tasks.run"] * 2
    assert work.CALLS == [(1, 2), (3, 0)]


def test_the_broker_sees_ids_only(drain):
    result = work.bare.enqueue("ada@example.com", {"name": ["Ada"]})
    relay.drain()

    [message] = waiting("jobs")
    assert result.id in message
    assert not {name for name in ("ada@example.com", "Ada", "work.bare") if name in message}


@pytest.mark.parametrize(
    ("task", "queue"),
    [
        (lambda: work.add, "jobs"),
        (lambda: work.add.using(queue_name="newsletters"), "email"),
        (lambda: work.add.using(queue_name="orders"), "orders"),
        (lambda: work.add.using(backend="prioritized"), "jobs"),
        (lambda: work.add.using(backend="prioritized", priority=60), "orders"),
        (lambda: work.add.using(backend="prioritized", priority=-1), "email"),
    ],
)
def test_queue_names_and_priorities_lead_to_celery_queues(drain, task, queue):
    result = task().enqueue(1)
    relay.drain()

    [message] = waiting(queue)
    assert result.id in message


def test_a_task_waits_for_its_time(drain):
    at = clock.now() + dt.timedelta(hours=1)
    result = work.add.using(run_after=at).enqueue(1)

    assert drain() == []
    testing.pass_time(dt.timedelta(minutes=59))
    assert drain() == []
    testing.pass_time(dt.timedelta(minutes=2))
    assert drain() == ["outbox.django_tasks.run"]
    result.refresh()
    assert result.status == TaskResultStatus.SUCCESSFUL


def test_a_time_that_has_passed_is_now(drain):
    work.add.using(run_after=dt.datetime(2020, 1, 1, tzinfo=dt.UTC)).enqueue(1)

    assert drain() == ["outbox.django_tasks.run"]


def test_arguments_become_plain_json(drain):
    result = work.bare.enqueue(
        (1, [2.5, None, True]), b"bytes", text="é\u2028 \\u0000", mapped={"a": {"b": ()}}
    )

    assert result.args == [[1, [2.5, None, True]], "bytes"]
    assert result.kwargs == {"text": "é\u2028 \\u0000", "mapped": {"a": {"b": []}}}
    drain()
    [called_with] = work.CALLS
    assert called_with == (tuple(result.args), result.kwargs)
    assert work.bare.get_result(result.id).args == result.args


@pytest.mark.parametrize(
    "enqueue", [work.bare.enqueue, async_to_sync(work.bare.aenqueue)], ids=["sync", "async"]
)
@pytest.mark.parametrize("argument", [object(), dt.datetime(2030, 1, 1), {1, 2}], ids=["object", "time", "set"])
def test_an_argument_that_is_no_json_is_a_type_error(enqueue, argument):
    with pytest.raises(TypeError, match="Unsupported type"):
        enqueue(argument)
    assert not OutboxMessage.objects.exists()


@pytest.mark.parametrize("argument", [float("nan"), float("inf"), "a\x00b", {"\x00": 1}, "\ud800"], ids=ascii)
def test_an_argument_that_postgresql_cannot_store_is_refused_before_it_spoils_the_transaction(argument):
    with transaction.atomic():
        with pytest.raises(ValueError):  # noqa: PT011 - Python's own words for most of them
            work.bare.enqueue([argument])
        kept = work.bare.enqueue("afterwards")

    assert list(EnqueuedTask.objects.values_list("pk", flat=True)) == [uuid.UUID(kept.id)]


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_signal_says_that_a_task_is_enqueued(how):
    received = []

    def receive(sender, task_result, **_):
        received.append((sender, task_result))

    task_enqueued.connect(receive)
    try:
        result = work.add.enqueue(1) if how == "sync" else async_to_sync(work.add.aenqueue)(1)
    finally:
        task_enqueued.disconnect(receive)

    assert received == [(OutboxBackend, result)]


def test_django_logs_that_a_task_is_enqueued(caplog):
    with caplog.at_level(logging.DEBUG, logger=work.LOGGER):
        result = work.add.enqueue(1)

    [line] = [record.getMessage() for record in caplog.records if "enqueued" in record.getMessage()]
    assert result.id in line
