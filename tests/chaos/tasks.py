"""Tasks that fail in various ways, for real workers: `celery -A orderflow worker -I tests.chaos.tasks`."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
import uuid

from celery import shared_task
from celery.exceptions import Reject, SoftTimeLimitExceeded
from kombu import Connection

from outbox.consumer import ConsumerTask
from outbox.models import InboxEntry
from outbox.resilience import Permanent, RetryPolicy, Transient

ONE_ROUND = RetryPolicy(attempts=2, redelivery_waits=())

THREE_TRIES = RetryPolicy(attempts=3, redelivery_waits=())

FINISHED = "tests.finished"
BEGUN = "tests.begun"
DELIVERED = "tests.delivered."
"""A key per delivery, with a name of its own appended."""


def note(witness, message_id):
    return InboxEntry.objects.get_or_create(consumer=witness, message_id=message_id)[1]


@shared_task(base=ConsumerTask)
def finish(*, message_id, **_):
    return note(FINISHED, message_id)


@shared_task(base=ConsumerTask, **ONE_ROUND.task_options())
def fail_once(*, message_id, **_):
    if note(BEGUN, message_id):
        raise Transient("the first time")
    return note(FINISHED, message_id)


@shared_task(base=ConsumerTask, **THREE_TRIES.task_options())
def fail_twice(*, message_id, **_):
    if note(BEGUN, message_id) or note(f"{BEGUN}.again", message_id):
        raise Transient("the first two times")
    return note(FINISHED, message_id)


@shared_task(base=ConsumerTask, policy=ONE_ROUND, soft_time_limit=1, time_limit=2)
def hang(*, message_id, **_):
    while True:
        with contextlib.suppress(SoftTimeLimitExceeded):
            time.sleep(60)


@shared_task(base=ConsumerTask)
def kill_worker(*, message_id, **_):
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task(base=ConsumerTask)
def die_by(*, message_id, how, seconds=0.3, **_):
    """End the process in one of the ways in which processes end."""
    InboxEntry.objects.create(consumer=f"{DELIVERED}{uuid.uuid4()}", message_id=message_id)
    time.sleep(seconds)
    if how == "a signal":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "a segmentation fault":
        ctypes.string_at(0)
    os._exit(7)


@shared_task(base=ConsumerTask)
def kill_pool(*, message_id, seconds=0.3, **_):
    InboxEntry.objects.create(consumer=f"{DELIVERED}{uuid.uuid4()}", message_id=message_id)
    time.sleep(seconds)
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)  # its own end follows


class DiesBefore(ConsumerTask):
    abstract = True

    def before_start(self, *_):
        os._exit(7)


class DiesAfter(ConsumerTask):
    abstract = True

    def on_failure(self, *_):
        os._exit(7)


@shared_task(base=DiesBefore)
def die_before(*, message_id, **_):
    raise AssertionError("it does not come to that")


@shared_task(base=DiesAfter)
def die_after(*, message_id, **_):
    raise ValueError("what comes of it is worse")


@shared_task(base=ConsumerTask)
def leave(*, message_id, **_):
    sys.exit(1)


@shared_task(base=ConsumerTask)
def devour_memory(*, message_id, **_):
    raise MemoryError("all of it")


@shared_task(base=ConsumerTask)
def reject(*, message_id, **_):
    raise Reject("not for me", requeue=False)


@shared_task(base=ConsumerTask, bind=True)
def retry_in_vain(self, *, message_id, **_):
    with Connection("redis://127.0.0.1:1/", transport_options={"max_retries": 1}) as nowhere:
        raise self.retry(exc=Transient("again"), countdown=1, connection=nowhere, retry=False)


@shared_task(base=ConsumerTask)
def linger(*, message_id, seconds=1.0, **_):
    note(BEGUN, message_id)
    InboxEntry.objects.create(consumer=f"{DELIVERED}{uuid.uuid4()}", message_id=message_id)
    time.sleep(seconds)
    return note(FINISHED, message_id)


@shared_task(base=ConsumerTask)
def refuse(*, message_id, about, **_):
    """Fail for good, with an error that names somebody."""
    raise Permanent(f"refused for {about}")
