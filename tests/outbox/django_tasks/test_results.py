"""Results can be looked up from anywhere, as long as they are kept."""

from __future__ import annotations

import datetime as dt
import threading

import pytest
from asgiref.sync import async_to_sync
from django.db import connection
from django.test.utils import CaptureQueriesContext

from outbox import testing
from outbox.dead_letters import resolving
from outbox.django_tasks.library import TaskResultDoesNotExist, TaskResultStatus, task_backends
from outbox.models import DeadLetter, EnqueuedTask, OutboxMessage
from outbox.resilience import Permanent
from outbox.retention import pruning
from tests.outbox.django_tasks import work

try:
    from django.tasks.exceptions import TaskResultMismatch
except ImportError:
    from django_tasks.exceptions import TaskResultMismatch

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("tasks")]

BOTH_WAYS = pytest.mark.parametrize("how", ["sync", "async"])


def look_up(owner, result_id, how):
    return owner.get_result(result_id) if how == "sync" else async_to_sync(owner.aget_result)(result_id)


@BOTH_WAYS
def test_a_result_is_found_by_its_id(how):
    result = work.add.enqueue(1, second=2)

    assert look_up(work.add, result.id, how) == result
    assert look_up(task_backends["default"], result.id, how) == result


@BOTH_WAYS
@pytest.mark.parametrize("owner", ["task", "backend"])
@pytest.mark.parametrize("result_id", ["01a22d91-16c5-782d-bb37-e1247bc2137b", "123", "", "x" * 64])
def test_an_unknown_id_is_no_result(owner, result_id, how):
    with pytest.raises(TaskResultDoesNotExist):
        look_up(work.add if owner == "task" else task_backends["default"], result_id, how)


@BOTH_WAYS
def test_a_result_of_another_task_is_a_mismatch(how):
    result = work.add.enqueue(1)

    with pytest.raises(TaskResultMismatch, match="Task does not match"):
        look_up(work.bare, result.id, how)


@BOTH_WAYS
def test_a_result_is_refreshed(drain, how):
    result = work.add.enqueue(1)
    drain()
    assert (result.status, result.attempts) == (TaskResultStatus.READY, 0)

    result.refresh() if how == "sync" else async_to_sync(result.arefresh)()
    assert (result.status, result.attempts, result.return_value) == (TaskResultStatus.SUCCESSFUL, 1, 1)


def test_a_result_is_seen_from_other_threads(drain):
    result = work.add.enqueue(1)
    drain()
    seen = []

    def look():
        seen.append(work.add.get_result(result.id).return_value)
        connection.close()

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [1]


def test_looking_up_a_finished_result_costs_one_query(drain):
    result = work.add.enqueue(1)
    drain()

    with CaptureQueriesContext(connection) as captured:
        work.add.get_result(result.id)
    assert len(captured) == 1


def test_results_are_kept_for_the_retention_and_then_pruned(drain, settings):
    settings.OUTBOX_RETENTION_DAYS = 10
    old = work.add.enqueue(1)
    drain()
    make_old(dt.timedelta(days=11))
    new = work.add.enqueue(2)
    drain()

    assert pruning.prune()["tasks"] == 1
    with pytest.raises(TaskResultDoesNotExist):
        work.add.get_result(old.id)
    assert work.add.get_result(new.id).return_value == 2


def test_what_waits_or_has_failed_is_never_pruned(drain, settings):
    settings.OUTBOX_RETENTION_DAYS = 10
    work.TROUBLES.append(Permanent("no such thing"))
    work.fragile.enqueue()
    drain()
    work.add.using(run_after=dt.datetime(2099, 1, 1, tzinfo=dt.UTC)).enqueue(2)
    make_old(dt.timedelta(days=100))

    assert pruning.prune()["tasks"] == 0
    assert EnqueuedTask.objects.count() == 2
    resolving.discard(DeadLetter.objects.all(), by="me", reason="nobody needs it")
    assert pruning.prune()["tasks"] == 1
    assert EnqueuedTask.objects.get().task == work.add.module_path


def make_old(span):
    """Let time pass for the rows, and for the ids, which say when they were made."""
    testing.pass_time(span)
    with connection.cursor() as cursor:
        others = ("enqueuedtask", "delivery", "deadletter", "attempt")
        for table, column in (
            ("outbox_outboxmessage", "id"),
            *((f"outbox_{name}", "message_id") for name in others),
        ):
            cursor.execute(f"UPDATE {table} SET {column} = overlay({column}::text placing '0100' from 1)::uuid")
    assert OutboxMessage.objects.filter(created_at__gt=dt.datetime(2027, 1, 1, tzinfo=dt.UTC)).count() == 0
