"""The inbox, and what retention deletes and never deletes."""

from __future__ import annotations

import datetime as dt
import threading
import uuid

import pytest
import uuid6
from celery import current_app
from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone
from django_celery_results.models import GroupResult, TaskResult

from orders.models import Order
from outbox import inbox, publisher
from outbox.dead_letters import burying
from outbox.models import Attempt, InboxEntry, OutboxMessage
from outbox.retention import pruning
from tests.factories import place
from tests.outbox.events import Happened

pytestmark = pytest.mark.django_db(transaction=True)

LONG_AGO = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


def old_message():
    with transaction.atomic():
        message_id = publisher.publish(Happened())
    OutboxMessage.objects.filter(pk=message_id).update(status="published", published_at=LONG_AGO)
    return message_id


def test_a_message_takes_effect_once_per_consumer_under_concurrency():
    message_id, answers = uuid.uuid4(), []

    def take():
        with transaction.atomic():
            answers.append(inbox.once("tests.consumer", message_id))
        connection.close()

    threads = [threading.Thread(target=take) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [False] * 9 + [True]
    with transaction.atomic():
        assert inbox.once("tests.another", message_id)


def test_an_effect_that_rolled_back_was_not_taken():
    message_id = uuid.uuid4()
    with pytest.raises(RuntimeError), transaction.atomic():
        inbox.once("tests.consumer", message_id)
        raise RuntimeError

    with transaction.atomic():
        assert inbox.once("tests.consumer", message_id)


def test_a_copy_that_arrives_after_the_retention_is_refused():
    made_at = int((timezone.now() - dt.timedelta(days=settings.OUTBOX_RETENTION_DAYS, hours=1)).timestamp())
    message_id = uuid.UUID(int=uuid6.uuid7().int & (1 << 80) - 1 | made_at * 1000 << 80)
    with pytest.raises(inbox.Forgotten), transaction.atomic():
        inbox.once("tests.consumer", message_id)
    assert not InboxEntry.objects.exists()

    OutboxMessage.objects.create(
        id=message_id, event_name="tests.happened", event_version=2, key="thing-1", payload={}
    )
    with transaction.atomic():
        assert inbox.once("tests.consumer", message_id)


def test_the_inbox_outside_a_transaction_raises():
    with pytest.raises(publisher.NotInTransaction):
        inbox.once("tests.consumer", uuid.uuid4())


def test_old_messages_go_in_batches_and_new_ones_stay():
    for _ in range(5):
        old_message()
    with transaction.atomic():
        kept = publisher.publish(Happened())

    assert pruning.prune(batch=2)["messages"] == 5
    assert OutboxMessage.objects.get().pk == kept


def test_the_message_of_an_open_dead_letter_is_never_pruned():
    message_id = old_message()
    burying.bury(
        burying.Failure(
            source="task", consumer="tests.x", error_class="X", error="x", message_id=str(message_id)
        )
    )
    attempt = Attempt.objects.create(
        consumer="tests.x", message_id=message_id, outcome="buried", error_class="X", error="x"
    )
    Attempt.objects.update(failed_at=LONG_AGO)

    assert not any(pruning.prune().values())
    assert Attempt.objects.get() == attempt


def test_the_message_of_an_unfinished_order_is_never_pruned():
    order = place()
    OutboxMessage.objects.update(status="published", published_at=LONG_AGO)
    assert pruning.prune()["messages"] == 0

    Order.objects.filter(pk=order.pk).update(status="rejected", due_at=None, finished_at=LONG_AGO)
    assert pruning.prune()["messages"] == 1


def test_the_memory_of_duplicates_outlives_the_message():
    message_id = old_message()
    with transaction.atomic():
        inbox.once("tests.consumer", message_id)
    InboxEntry.objects.update(taken_at=LONG_AGO)
    with transaction.atomic():
        OutboxMessage.objects.filter(pk=message_id).update(status="pending")
    assert pruning.prune()["inbox entries"] == 0

    OutboxMessage.objects.filter(pk=message_id).update(status="published")
    pruned = pruning.prune()
    assert (pruned["messages"], pruned["inbox entries"]) == (1, 1)


def test_results_of_jobs_are_deleted_after_their_days():
    expires = dt.timedelta(seconds=current_app.conf.result_expires)
    for task_id, age in (("old", expires + dt.timedelta(hours=1)), ("new", expires - dt.timedelta(hours=1))):
        TaskResult.objects.create(task_id=task_id, status="SUCCESS")
        TaskResult.objects.filter(task_id=task_id).update(date_done=timezone.now() - age)
    GroupResult.objects.create(group_id="old")
    GroupResult.objects.update(date_done=LONG_AGO)

    assert pruning.prune(batch=1)["results"] == 2
    assert list(TaskResult.objects.values_list("task_id", flat=True)) == ["new"]
    assert not GroupResult.objects.exists()
    assert expires == dt.timedelta(days=settings.RESULT_RETENTION_DAYS)
