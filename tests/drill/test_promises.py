"""The promises to the client, checked against a real database and the sandbox's real ledgers."""

import dataclasses
import datetime as dt
import time
import uuid

import pytest

from orderflow.chaos.assessment import promises
from orderflow.chaos.assessment.promises import Ledgers
from orderflow.chaos.load import planned_orders
from orderflow.chaos.load.client import Placed, Try
from orders import services
from orders.models import Order
from outbox.models import DeadLetter

BEGUN = dt.datetime.now(dt.UTC)
CHOSEN = ("good", "declined", "unshippable")
NOTHING = Ledgers(charges=[], refunds=[], shipments=[], texts=[], mails=[], pushes=[])


def worked_off(drain):
    """A few orders, some of them meant to fail, accepted and processed."""
    planned_orders.stock(100)
    wanted = planned_orders.draw(60, seed=7, run="test")
    chosen = [next(planned for planned in wanted if planned.kind == kind) for kind in CHOSEN]
    done = [place(planned) for planned in chosen]
    drain()
    return done


def place(planned):
    body = planned.body
    order = services.place_order(
        items=[services.Item(**item) for item in body["items"]],
        currency=body["currency"],
        payment_method=body["payment_method"],
        contact=services.Contact(**body["customer"]),
        country=body["country"],
        client_reference=body["client_reference"],
        idempotency=services.IdempotencyKey.of(scope="drill", key=planned.key, request=body),
    ).order
    answer = Try(at=time.time(), seconds=0.01, status=201)
    return Placed(planned=planned, tries=[answer], order_id=str(order.pk), order_number=order.number)


def ledgers(world):
    return Ledgers.read(mail_url=world.smtp.url)


def rules(found):
    return {finding.rule for finding in found}


def test_duplicates_losses_and_wrong_amounts_are_found_and_nothing_else(world, drain):
    placed = worked_off(drain)
    honest = ledgers(world)
    assert promises.check(placed, honest) == []
    assert promises.unsent_notifications(placed) == []
    assert promises.dead_letters(since=BEGUN) == []
    assert promises.repeats(honest) == {"mails": 0, "pushes": 0}

    doubled = dataclasses.replace(
        honest,
        charges=[*honest.charges, honest.charges[0]],
        shipments=[*honest.shipments, honest.shipments[0]],
        texts=[*honest.texts, honest.texts[0]],
    )
    found = promises.check(placed, doubled)
    assert rules(found) == {"charged twice", "shipped twice", "SMS sent twice", "wrong amount"}
    number = Order.objects.get(pk=honest.shipments[0]["order_id"]).number
    assert number in {finding.subject for finding in found if finding.rule == "shipped twice"}

    robbed = dataclasses.replace(honest, refunds=[], shipments=honest.shipments[1:])
    assert rules(promises.check(placed, robbed)) == {"wrong amount", "not shipped"}

    ghost = dataclasses.replace(placed[0], order_id=str(uuid.uuid4()), order_number="OF-9")
    [lost] = promises.check([*placed, ghost], honest)
    assert (lost.rule, lost.subject) == ("lost", "OF-9")


def test_unfinished_orders_and_notifications_are_found(world, drain):
    planned_orders.stock(10)
    one = place(planned_orders.draw(1, seed=7, run="late")[0])
    assert rules(promises.check([one], ledgers(world))) == {"not final"}
    [unsent] = promises.unsent_notifications([one])
    assert (unsent.rule, unsent.subject) == ("notification not sent", one.order_number)


@pytest.mark.django_db
def test_requests_without_a_response_are_found_and_a_refusal_is_a_response():
    first, second = planned_orders.draw(2, seed=7, run="quiet")
    silent = Placed(planned=first, tries=[Try(at=0, seconds=5, error="ReadTimeout")])
    refused = Placed(planned=second, tries=[Try(at=0, seconds=1, status=422)], refused="422: no")
    assert [one.rule for one in promises.unanswered([silent, refused])] == ["no answer"]
    assert rules(promises.check([silent, refused], NOTHING)) == {"refused"}


@pytest.mark.django_db
def test_every_dead_letter_is_a_finding():
    DeadLetter.objects.create(
        source="task", consumer="orders.tasks.charge", key="order", error_class="KeyError", error="x"
    )
    [dead_letter] = promises.dead_letters(since=BEGUN)
    assert dead_letter.subject == "order"
    assert "orders.tasks.charge: KeyError" in dead_letter.detail
