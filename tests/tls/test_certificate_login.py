"""Login at RabbitMQ with a client certificate (`login_method=EXTERNAL`), without any password."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orderflow.stack.problem import Problem
from orders.models import Order
from tests import processes
from tests.factories import ProductFactory, place
from tests.processes import eventually
from tests.tls import node
from tests.tls.test_connections import connect

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]

TO_THE_BROKER = {"celery, writing", "celery, reading", "kombu alone", "run.py, broker"}

NO_HANDSHAKE = ("alert", "EOF occurred in violation of protocol", "reset by peer", "Broken pipe")
"""With TLS 1.3 a client learns of the refusal after its handshake; often its connection is already closed."""


@pytest.fixture(scope="module")
def rabbitmq(certificates) -> Iterator[node.CertificateNode]:
    try:
        with node.started(certificates.server["right"], certificates.ours, "CN=client") as running:
            yield running
    except (Problem, node.NoPlugin) as missing:
        pytest.skip(str(missing))


def variables(rabbitmq, certificates, shown, *, url: str = "") -> dict[str, str]:
    return {
        "DJANGO_SETTINGS_MODULE": "orderflow.settings",
        "BROKER_URL": url or rabbitmq.address(ca=certificates.ours.file, shown=shown),
    }


def to_the_broker(environment):
    went = connect(processes.environment() | environment)
    assert went.keys() >= TO_THE_BROKER
    return {name: went[name] for name in TO_THE_BROKER}


def test_every_connection_to_the_broker_logs_in_with_the_certificate_alone(rabbitmq, certificates):
    environment = variables(rabbitmq, certificates, certificates.client)
    assert "@" not in environment["BROKER_URL"]

    assert to_the_broker(environment) == dict.fromkeys(TO_THE_BROKER, "")


@pytest.mark.parametrize("who", ["nobody", "of another authority", "expired", "of another name"])
def test_a_login_requires_a_known_certificate(rabbitmq, certificates, who):
    ours = certificates.ours
    shown = {
        "nobody": None,
        "of another authority": certificates.stranger,
        "expired": ours.sign("late", client=True, expired=True),
        "of another name": ours.sign("unknown", client=True),
    }[who]
    signs = ("ACCESS_REFUSED",) if who == "of another name" else NO_HANDSHAKE
    went = to_the_broker(variables(rabbitmq, certificates, shown))

    assert {name: failure for name, failure in went.items() if not any(sign in failure for sign in signs)} == {}


def test_a_password_is_not_accepted_in_place_of_a_certificate(rabbitmq, certificates):
    address = rabbitmq.address(ca=certificates.ours.file, shown=certificates.client)
    url = address.replace("&login_method=EXTERNAL", "").replace("//127", f"//orderflow:{rabbitmq.password}@127")
    assert url.count("@") == 1

    went = to_the_broker(variables(rabbitmq, certificates, certificates.client, url=url))

    sign = "can offer: PLAIN; available: EXTERNAL"
    assert {name: failure for name, failure in went.items() if sign not in failure} == {}


def test_relay_and_worker_take_an_order_through_a_broker_that_knows_them_by_their_certificate(
    rabbitmq, certificates, world, tmp_path: Path
):
    environment = variables(rabbitmq, certificates, certificates.client)
    with processes.stack(tmp_path) as started:
        relay = started.relay(**environment)
        worker = started.worker("orders", "orders", pool="solo", CHAIN_INLINE_SECONDS="0", **environment)
        for process in (relay, worker):
            process.wait_until_ready()
        order = place(ProductFactory())
        eventually(
            lambda: Order.objects.filter(pk=order.pk, status=Order.Status.FULFILLED).exists(),
            lambda: relay.output()[-2000:] + worker.output()[-2000:],
        )
    assert len(world.payments.ledger(kind="payment_intent")) == 1
