"""A fault strikes when there is something to strike, or is reported as one that has injected nothing."""

from __future__ import annotations

import pytest

from orderflow.chaos import drill
from orderflow.chaos.drill import Drill, Plan
from orderflow.chaos.faults import injections as faults
from orderflow.chaos.faults.providers import ProviderFault
from orderflow.chaos.faults.schedule import Fault
from outbox import testing
from outbox.models import Delivery, OutboxMessage
from outbox.relay import relay
from tests.factories import place

AGAIN = Fault(start=0.0, kind="duplicate-delivery", target="messages", strength=60.0)
FORGETS = Fault(start=0.0, kind="broker-forgets", target="messages")
REFUSES = Fault(start=0.0, kind="wrong-credentials", target="sms", lasts=0.1)


@pytest.fixture
def told(monkeypatch):
    """Carry a fault out in a drill; the answer is what was told, and how the fault fared."""
    monkeypatch.setattr(drill, "POLL_INTERVAL", 0.01)
    monkeypatch.setattr(drill, "TARGET_PATIENCE", 0.05)

    def carry_out(fault, injector):
        lines = []
        plan = Plan(
            orders=1,
            duration=1,
            seed=1,
            broker="redis",
            settle=1,
            schedule=[],
            left_out={},
            stack=None,
            command="",
        )
        one = Drill(plan, lines.append)
        one._carry_out(fault, injector)
        [injected] = one._struck
        return injected, lines

    return carry_out


def act(fault):
    return faults.injector_for(fault, stack=None, broker_kind="redis", seed=1)


@pytest.mark.parametrize(("fault", "kind"), [(AGAIN, faults._DeliverAgain), (FORGETS, faults._Forget)])
def test_a_fault_that_finds_nothing_is_reported(told, drain, fault, kind):
    made = act(fault) if fault is AGAIN else kind()
    injected, lines = told(fault, made)

    assert injected.problem
    assert "did not strike" in lines[0]


def test_a_fault_waits_until_there_is_something_to_strike(told, drain, world, monkeypatch):
    monkeypatch.setattr(drill, "TARGET_PATIENCE", 20)
    looks = []

    class Late(faults._DeliverAgain):
        def begin(self):
            looks.append(1)
            if len(looks) == 3:
                place()
                relay.drain()
            return super().begin()

    injected, _ = told(AGAIN, Late(60.0))

    assert (injected.problem, len(looks)) == ("", 3)
    assert OutboxMessage.objects.get().redeliveries == 1
    assert Delivery.objects.exists()


def test_a_fault_of_a_provider_that_nobody_asked_is_reported(told, world):
    injected, lines = told(REFUSES, ProviderFault(REFUSES, stack=None, seed=1))

    assert "no request came" in injected.problem
    assert any("has injected nothing" in line for line in lines)


def test_a_fault_of_a_provider_that_struck_is_no_problem(told, world, drain):
    class Asked(ProviderFault):
        def begin(self):
            done = super().begin()
            place()
            testing.drain()
            return done

    pays = Fault(start=0.0, kind="wrong-credentials", target="payments", lasts=0.0)
    injected, _ = told(pays, Asked(pays, stack=None, seed=1))
    assert injected.problem == ""
