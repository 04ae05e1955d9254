"""
The steps as tasks: ids in, one call into `steps`, a named policy. With `**_` old workers accept new arguments.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from celery import shared_task

from orders import adapters, compensation, steps
from orders import sweep as late_orders
from orders.dead_letters import needless
from outbox import periodic
from outbox.consumer import ConsumerTask
from outbox.resilience import RetryPolicy

DATABASE_RETRY = RetryPolicy(attempts=5, first_wait=dt.timedelta(seconds=1))
GATEWAY_RETRY = RetryPolicy(attempts=3, first_wait=dt.timedelta(seconds=1))
WAREHOUSE_RETRY = RetryPolicy(attempts=3, first_wait=dt.timedelta(seconds=1))


@shared_task(base=ConsumerTask, on_buried=needless.close_if_needless, **DATABASE_RETRY.task_options())
def validate(*, message_id: str, order_id: str, **_: Any) -> bool:
    return steps.validate(order_id=order_id, refusal=adapters.payment_gateway().refusal_of)


@shared_task(base=ConsumerTask, on_buried=needless.close_if_needless, **GATEWAY_RETRY.task_options())
def charge(*, message_id: str, order_id: str, **_: Any) -> bool:
    return steps.charge(order_id=order_id, gateway=adapters.payment_gateway())


@shared_task(base=ConsumerTask, on_buried=needless.close_if_needless, **WAREHOUSE_RETRY.task_options())
def fulfill(*, message_id: str, order_id: str, **_: Any) -> bool:
    return steps.fulfill(order_id=order_id, warehouse=adapters.warehouse())


@shared_task(base=ConsumerTask, **GATEWAY_RETRY.task_options())
def cancel(*, message_id: str, order_id: str, **_: Any) -> bool:
    return compensation.cancel(
        order_id=order_id, gateway=adapters.payment_gateway(), warehouse=adapters.warehouse()
    )


@shared_task(base=ConsumerTask, **GATEWAY_RETRY.task_options())
def refund(*, message_id: str, order_id: str, **_: Any) -> bool:
    return compensation.refund(order_id=order_id, gateway=adapters.payment_gateway())


@shared_task(base=ConsumerTask, **GATEWAY_RETRY.task_options())
def refund_stranded(*, message_id: str, order_id: str, **_: Any) -> bool:
    return compensation.refund_stranded(order_id=order_id, gateway=adapters.payment_gateway())


@periodic.task(every=dt.timedelta(seconds=1))
def sweep(**_: Any) -> None:
    """Resume orders that are late and not being processed."""
    late_orders.resume_overdue()
