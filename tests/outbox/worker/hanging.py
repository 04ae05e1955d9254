"""Tasks that hang in various ways, for real workers."""

from __future__ import annotations

import ctypes
import logging
import threading
import time

from celery import current_app, shared_task
from celery.exceptions import SoftTimeLimitExceeded

from outbox.consumer import ConsumerTask
from outbox.worker import retirement
from tests.chaos.tasks import BEGUN, FINISHED, ONE_ROUND, note

retirement.LONGEST_STANDSTILL = 6.0  # instead of a minute
current_app.conf.worker_soft_shutdown_timeout = 2.0

LIMITED = {"base": ConsumerTask, "policy": ONE_ROUND, "soft_time_limit": 1, "time_limit": 2}

SOFT = "tests.soft_limit"


@shared_task(**LIMITED)
def hang_in_sleep(*, message_id, seconds=600.0, **_):
    note(BEGUN, message_id)
    time.sleep(seconds)
    return note(FINISHED, message_id)


@shared_task(**LIMITED)
def hang_in_a_lock(*, message_id, **_):
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


@shared_task(**LIMITED)
def hang_in_c(*, message_id, **_):
    ctypes.CDLL(None).sleep(600)  # without the interpreter's lock, and without looking at exceptions


@shared_task(**LIMITED)
def hang_in_python(*, message_id, **_):
    while True:
        try:
            while True:
                pass
        except SoftTimeLimitExceeded:
            note(SOFT, message_id)


@shared_task(**LIMITED)
def hold_the_lock(*, message_id, **_):
    note(BEGUN, message_id)
    ctypes.PyDLL(None).sleep(600)  # with the interpreter's lock: nothing else runs


@shared_task(**LIMITED)
def leave_a_lock(*, message_id, **_):
    note(BEGUN, message_id)
    logging.getLogger().handlers[0].acquire()  # as a thread that is interrupted in the wrong moment


@shared_task(**LIMITED)
def stop_in_time(*, message_id, **_):
    try:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            time.sleep(0.05)
    except SoftTimeLimitExceeded:
        return note(FINISHED, message_id)


@shared_task(base=ConsumerTask, policy=ONE_ROUND)
def take_long(*, message_id, seconds=600.0, **_):
    """Take long in many short calls, without limits of its own."""
    note(BEGUN, message_id)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.05)
    return note(FINISHED, message_id)
