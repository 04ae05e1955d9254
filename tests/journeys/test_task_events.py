"""Flower's events from the workers: every step, but no frequent periodic task."""

from __future__ import annotations

import contextlib
import socket

import pytest

from orderflow.celery import app
from tests.factories import place
from tests.processes import eventually

STEPS = {"orders.tasks.validate", "orders.tasks.charge", "orders.tasks.fulfill"}


@pytest.mark.slow
def test_flowers_list_of_tasks_is_not_flooded_by_periodic_tasks(staff, broker):
    received: set[str] = set()
    done_by_relay: list[int] = []

    def note_work(event: dict) -> None:
        if event["hostname"].startswith("relay"):
            done_by_relay.append(event["processed"])

    handlers = {"task-received": lambda event: received.add(event["name"]), "worker-heartbeat": note_work}
    with app.connection(broker.url) as connection:
        receiver = app.events.Receiver(connection, handlers=handlers)
        with receiver.consumer_context() as (listening, _, _):
            place()

            def heard_enough() -> bool:
                with contextlib.suppress(socket.timeout):
                    listening.drain_events(timeout=1)
                return received >= STEPS and done_by_relay[-1:] > done_by_relay[:1]

            eventually(heard_enough, lambda: f"{STEPS} in {received}; the relay's work in {done_by_relay}")

    assert not [name for name in received if name.endswith(("drain", "sweep", "unpark"))]
