"""One task per channel, each with its own queue: takes ids, calls `services` and has a retry policy."""

from __future__ import annotations

import datetime as dt
import functools
from typing import Any

from celery import shared_task

from notifications import services
from notifications.models import Channel
from outbox.consumer import ConsumerTask
from outbox.resilience import RetryPolicy

PROVIDER_RETRY = RetryPolicy(attempts=3, first_wait=dt.timedelta(seconds=2))


def _failed(channel: Channel) -> functools.partial[None]:
    return functools.partial(services.mark_failed, channel=channel)


@shared_task(base=ConsumerTask, on_buried=_failed(Channel.EMAIL), **PROVIDER_RETRY.task_options())
def send_email(*, message_id: str, order_id: str, **_: Any) -> bool:
    return services.deliver(channel=Channel.EMAIL, message_id=message_id)


@shared_task(base=ConsumerTask, on_buried=_failed(Channel.SMS), **PROVIDER_RETRY.task_options())
def send_sms(*, message_id: str, order_id: str, **_: Any) -> bool:
    return services.deliver(channel=Channel.SMS, message_id=message_id)


@shared_task(base=ConsumerTask, on_buried=_failed(Channel.PUSH), **PROVIDER_RETRY.task_options())
def send_push(*, message_id: str, order_id: str, **_: Any) -> bool:
    return services.deliver(channel=Channel.PUSH, message_id=message_id)


@shared_task(ignore_result=True, acks_late=False)
def sweep(**_: Any) -> None:
    """Do nothing. A beat of the previous version still schedules it; the outbox's sweep has replaced it."""
