"""How copies are counted and judged: a real trigger in a real database, and judgements on given times."""

import uuid

import pytest
from django.db import connection

from orderflow.chaos.assessment import copies
from orderflow.chaos.assessment.recovery import InjectedFault
from orderflow.chaos.faults.schedule import Fault
from outbox import redelivery
from outbox.models import Attempt, Delivery, OutboxMessage
from tests.drill.test_promises import worked_off

PAIR = (uuid.UUID(int=1), "orders.workflows.work_off")


def injected(kind, began, back, problem=""):
    fault = Fault(start=began, kind=kind, target="")
    return InjectedFault(fault=fault, began_at=began, ended_at=began, recovered_at=back, problem=problem)


def unexplained(times, *faults, waits=0):
    return copies.judge(100, {PAIR: times}, {PAIR: waits}, faults).unexplained


def test_an_unexplained_copy_is_counted():
    assert unexplained([10, 20]) == 1
    assert unexplained([10, 20, 30, 40]) == 3


@pytest.mark.parametrize("kind", ["slow-provider", "slow-channel", "wrong-credentials", "clock-skew"])
def test_a_fault_that_loses_nothing_explains_no_copy(kind):
    assert unexplained([10, 20], injected(kind, 12, 15)) == 1


@pytest.mark.parametrize("kind", ["broker-forgets", "kill-worker", "duplicate-delivery"])
def test_each_fault_that_loses_or_repeats_messages_explains_one_more_copy(kind):
    assert unexplained([10, 20], injected(kind, 12, 15)) == 0
    assert unexplained([10, 20, 30], injected(kind, 12, 15)) == 1
    assert unexplained([10, 20, 30], injected(kind, 12, 15), injected(kind, 22, 25)) == 0


def test_a_fault_explains_only_copies_sent_before_it_ended_and_again_after_it_began():
    assert unexplained([10, 20], injected("broker-forgets", 5, 8)) == 1
    assert unexplained([10, 20], injected("broker-forgets", 21, 22)) == 1
    assert unexplained([10, 20], injected("broker-forgets", 12, 15, problem="no effect")) == 1


def test_a_planned_wait_requests_one_more_copy():
    assert unexplained([10, 20, 30], waits=2) == 0
    assert unexplained([10, 20, 30], waits=1) == 1


def test_one_in_a_hundred_deliveries_may_be_copied_without_a_reason():
    others = {(uuid.UUID(int=number), "w"): [1, 2] for number in range(3)}
    assert copies.judge(200, others, {}, []).are_too_many
    assert not copies.judge(300, others, {}, []).are_too_many


@pytest.fixture
def witness(transactional_db):
    copies.install_trigger()
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE chaos_copy; DROP FUNCTION chaos_note_copy CASCADE")


def test_one_copy_of_each_delivery_is_recorded_while_nothing_is_lost(world, witness, drain):
    worked_off(drain)
    seen = copies.count([])
    assert seen.deliveries == seen.copies > 0
    assert seen.copied == []
    assert not Delivery.objects.exists()


def test_a_needless_copy_is_recorded(world, witness, drain):
    worked_off(drain)
    message = OutboxMessage.objects.order_by("pk").first()
    redelivery.redeliver([message.pk])
    drain()
    seen = copies.count([])
    assert {one.message_id for one in seen.copied} == {str(message.pk)}
    assert seen.unexplained == len(seen.copied) > 0
    assert seen.are_too_many


@pytest.mark.slow
def test_a_provider_that_refuses_for_a_while_causes_no_unexplained_copies(world, witness, drain):
    with world.payments.failing(fault="error", status=503):
        worked_off(drain)
    assert Attempt.objects.filter(outcome__in=copies.PLANNED).exists()
    drain(redeliveries=True)
    seen = copies.count([])
    assert seen.planned > 0
    assert (seen.copies, seen.copied) == (seen.deliveries + seen.planned, [])
