"""A step that kills its worker while it holds its order's lease, on both brokers."""

from __future__ import annotations

import datetime as dt

import pytest
from django.core.management import call_command

from orders.models import Order
from outbox import testing
from outbox.models import Attempt, DeadLetter
from tests import processes, rabbitmq_hosts
from tests.chaos.conftest import AMQP_URL, NO_RABBITMQ, Broker
from tests.factories import place
from tests.processes import RedisServer, eventually

pytestmark = [pytest.mark.slow, pytest.mark.processes, pytest.mark.timeout(180)]


@pytest.fixture
def url(request, tmp_path):
    if request.param == "rabbitmq":
        if not rabbitmq_hosts.answers(AMQP_URL):
            pytest.skip(NO_RABBITMQ)
        broker = Broker(AMQP_URL)
        broker.purge()
        yield AMQP_URL
        broker.purge()
        broker.close()
        return
    server = RedisServer(tmp_path)
    yield server.url
    server.kill()


CASES = [
    pytest.param("redis", "1", id="redis, inline"),
    pytest.param("rabbitmq", "0", id="rabbitmq, by the broker"),
    pytest.param("redis", "0", id="redis, by the broker", marks=pytest.mark.nightly),
    pytest.param("rabbitmq", "1", id="rabbitmq, inline", marks=pytest.mark.nightly),
]


@pytest.mark.parametrize(("url", "inline"), CASES, indirect=["url"])
def test_a_step_that_kills_its_worker_while_it_holds_the_lease_is_buried_after_three(
    transactional_db, world, url, tmp_path, inline
):
    order = place()
    charge = f"order-{order.pk}-charge"
    world.payments.control(fault="hang", latency_ms=60_000, match=charge)  # and does nothing afterwards
    with processes.stack(tmp_path) as stack:
        settings = {"BROKER_URL": url, "CHAIN_INLINE_SECONDS": inline}
        worker = stack.worker("orders", "orders", concurrency=2, **settings)
        stack.relay(**settings)
        stack.beat(**settings)
        versions = set()

        def is_charging():
            held = Order.objects.filter(pk=order.pk, lease_until__isnull=False).exclude(version__in=versions)
            return held.values_list("version", flat=True).first()

        for _ in range(3):
            versions.add(eventually(is_charging, lambda: what_is_known(worker)))
            worker.kill_children()
            eventually(lambda: len(worker.children()) == 2, "new children")
            testing.pass_time(dt.timedelta(minutes=6))
        [dead_letter] = eventually(lambda: list(DeadLetter.objects.all()), lambda: what_is_known(worker))

        assert (dead_letter.consumer, dead_letter.error_class) == ("orders.tasks.charge", "CrashLoop")
        assert Order.objects.get(pk=order.pk).status == Order.Status.VALIDATED
        assert worker.is_alive()
        world.payments.clear_faults()
        call_command("replay_failures", "--all", "--reason", "mended", verbosity=0)
        eventually(lambda: Order.objects.get(pk=order.pk).status == Order.Status.FULFILLED, worker.output)
    assert sum(intent["status"] == "succeeded" for intent in world.payments.ledger(kind="payment_intent")) == 1


def what_is_known(worker):
    return [*Attempt.objects.values("consumer", "outcome", "error_class"), worker.output()[-3000:]]
