"""Claims of a dead worker's orders: made together with the record of its loss, or not at all."""

from __future__ import annotations

import datetime as dt

import pytest

from orders import claims, moves
from orders.models import Order
from outbox import testing
from outbox.worker import losses
from outbox.worker.losses import NotAlone
from tests.factories import place

pytestmark = pytest.mark.django_db

CLAIMS = {
    "charge": (moves.Status.VALIDATED, lambda order_id: claims.claim_to_charge(order_id, key="charge")),
    "fulfill": (moves.Status.CHARGED, lambda order_id: claims.claim_to_ship(order_id, key="shipment")),
    "cancel": (
        moves.Status.VALIDATED,
        lambda order_id: claims.claim(order_id, only_from=moves.CANCELLABLE, cancelling=True),
    ),
}


@pytest.fixture(params=CLAIMS)
def claim(request):
    """Claim a new order as one of the steps does; it is free at first."""
    status, take = CLAIMS[request.param]
    order = place()
    for passed in dict.fromkeys((moves.Status.VALIDATED, status)):
        Order.objects.filter(pk=order.pk).update(status=passed)
    return lambda: take(str(order.pk))


def not_alone():
    raise NotAlone("others that came back are at work")


def test_a_claim_of_a_free_order_records_no_loss(claim):
    with losses.at_work(not_alone):
        assert claim()


def test_taking_over_from_a_dead_worker_records_its_loss_or_claims_nothing(claim):
    claim()
    before = Order.objects.get()
    assert claim() is None  # the lease may belong to a living worker
    testing.pass_time(dt.timedelta(minutes=1))

    with losses.at_work(not_alone), pytest.raises(NotAlone):
        claim()
    assert Order.objects.get().version == before.version

    noted = []
    with losses.at_work(lambda: noted.append(Order.objects.get().version)):
        assert claim()
    assert noted == [before.version + 1]
