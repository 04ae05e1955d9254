"""The commands of Celery's own remote control are carried out as it sends them."""

from __future__ import annotations

import contextlib
import types

import pytest

from orderflow.celery import app

QUEUE, TASK, ID = "email", "orders.tasks.charge", "4bf1a1a2-9a3c-4f9e-8d84-2ee1a2a3a4a5"

COMMANDS = {
    "add_consumer": lambda control, **to: control.add_consumer(QUEUE, **to),
    "cancel_consumer": lambda control, **to: control.cancel_consumer(QUEUE, **to),
    "autoscale": lambda control, **to: control.autoscale(4, 2, **to),
    "pool_grow": lambda control, **to: control.pool_grow(2, **to),
    "pool_shrink": lambda control, **to: control.pool_shrink(1, **to),
    "rate_limit": lambda control, **to: control.rate_limit(TASK, "10/m", **to),
    "time_limit": lambda control, **to: control.time_limit(TASK, soft=10, hard=20, **to),
    "revoke": lambda control, **to: control.revoke(ID, terminate=True, signal="SIGTERM", **to),
    "enable_events": lambda control, **to: control.enable_events(**to),
    "shutdown": lambda control, **to: control.shutdown(**to),
    "ping": lambda control, **to: control.ping(timeout=0.01, **to),
    "active_queues": lambda control, **to: control.inspect(timeout=0.01, **to).active_queues(),
    "query_task": lambda control, **to: control.inspect(timeout=0.01, **to).query_task(ID),
}


@pytest.mark.parametrize("method", COMMANDS)
def test_a_usual_command_reaches_the_worker(method):
    reached = []
    with app.connection_for_read() as connection:
        node = app.control.mailbox.Node(
            "worker@here",
            state=types.SimpleNamespace(app=app),
            handlers={method: lambda state, **arguments: reached.append(method)},
            channel=connection.default_channel,
        )
        with node.listen(callback=node.handle_message):
            with contextlib.suppress(TimeoutError):
                connection.drain_events(timeout=0.01)  # Redis subscribes at the first read
            COMMANDS[method](app.control, destination=["worker@here"])
            while not reached:
                connection.drain_events(timeout=30)

    assert reached == [method]
