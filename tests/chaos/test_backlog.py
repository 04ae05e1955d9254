"""A long backlog: the sweeps still run, and the relay sends heartbeats to the broker."""

from __future__ import annotations

import itertools

import pytest
from django.db import transaction

from outbox import publisher
from outbox.models import OutboxMessage, PeriodicRun
from tests.chaos.conftest import NO_RABBITMQ
from tests.outbox.events import Happened
from tests.processes import eventually

pytestmark = [pytest.mark.slow, pytest.mark.processes, pytest.mark.django_db(transaction=True)]

BACKLOG = 75
"""Messages for which the slow relay needs 15 seconds: longer than RabbitMQ waits for a heartbeat here."""
HEARTBEAT = 2
FEW_SECONDS = 6


@pytest.mark.parametrize("kind", ["redis", "rabbitmq"])
def test_sweeps_run_every_few_seconds_during_a_long_backlog(short_lived, redis_broker, amqp_broker, kind):
    broker = {"redis": redis_broker, "rabbitmq": amqp_broker}[kind]
    if broker is None:
        pytest.skip(NO_RABBITMQ)
    broker.purge()
    with transaction.atomic(durable=True):
        publisher.publish_many(Happened(about=str(number)) for number in range(BACKLOG))
    settings = {"BROKER_URL": broker.url, "HEARTBEAT": str(HEARTBEAT), "VISIBILITY_TIMEOUT": "30"}
    relay = short_lived.relay(include="tests.chaos.slow_relay,tests.chaos.impatient", **settings)
    short_lived.beat(BROKER_URL=broker.url)

    sweeps = set()

    def is_worked_off():
        runs = PeriodicRun.objects.filter(name="orders.tasks.sweep")
        sweeps.update(runs.values_list("last_ended_at", flat=True))
        return not OutboxMessage.objects.undelivered().exists()

    eventually(is_worked_off, lambda: (OutboxMessage.objects.undelivered().count(), relay.output()[-2000:]))
    done = sorted(at for at in sweeps if at)
    pauses = [(later - earlier).total_seconds() for earlier, later in itertools.pairwise(done)]
    assert (done[-1] - done[0]).total_seconds() > BACKLOG * 0.2 - FEW_SECONDS
    assert max(pauses) < FEW_SECONDS
    assert not relay.has_logged("onnection to broker lost"), relay.output()[-3000:]
