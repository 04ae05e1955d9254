"""A fault is injected when there is a target, or is reported as one without effect."""

from __future__ import annotations

import kombu
import pytest

from orderflow.chaos import drill
from orderflow.chaos.drill import Drill, Plan
from orderflow.chaos.faults import injections
from orderflow.chaos.faults.providers import ProviderFault
from orderflow.chaos.faults.schedule import Fault
from orderflow.stack import ports
from outbox import testing
from outbox.models import Delivery, OutboxMessage
from outbox.relay import relay
from tests.factories import place

AGAIN = Fault(start=0.0, kind="duplicate-delivery", target="messages", strength=60.0)
FORGETS = Fault(start=0.0, kind="broker-forgets", target="messages")
REFUSES = Fault(start=0.0, kind="wrong-credentials", target="sms", lasts=0.1)


@pytest.fixture
def run_fault(monkeypatch):
    """Inject a fault in a drill; return the injected fault, and the lines of the timeline."""
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
        [injected] = one._injected
        return injected, lines

    return carry_out


def injector(fault):
    return injections.injector_for(fault, stack=None, broker_kind="redis", seed=1)


@pytest.mark.parametrize(("fault", "kind"), [(AGAIN, injections._DeliverAgain), (FORGETS, injections._Forget)])
def test_a_fault_without_a_target_is_reported(run_fault, drain, fault, kind):
    made = injector(fault) if fault is AGAIN else kind()
    injected, lines = run_fault(fault, made)

    assert injected.problem
    assert "was not injected" in lines[0]


def test_a_fault_waits_until_there_is_a_target(run_fault, drain, world, monkeypatch):
    monkeypatch.setattr(drill, "TARGET_PATIENCE", 20)
    attempts = []

    class Late(injections._DeliverAgain):
        def begin(self):
            attempts.append(1)
            if len(attempts) == 3:
                place()
                relay.drain()
            return super().begin()

    injected, _ = run_fault(AGAIN, Late(60.0))

    assert (injected.problem, len(attempts)) == ("", 3)
    assert OutboxMessage.objects.get().redeliveries == 1
    assert Delivery.objects.exists()


def test_a_provider_fault_without_a_matching_request_is_reported(run_fault, world):
    injected, lines = run_fault(REFUSES, ProviderFault(REFUSES, stack=None, seed=1))

    assert "no matching request came" in injected.problem
    assert any("had no effect" in line for line in lines)


def test_a_provider_fault_with_a_matching_request_is_no_problem(run_fault, world, drain):
    class WithRequest(ProviderFault):
        def begin(self):
            done = super().begin()
            place()
            testing.drain()
            return done

    pays = Fault(start=0.0, kind="wrong-credentials", target="payments", lasts=0.0)
    injected, _ = run_fault(pays, WithRequest(pays, stack=None, seed=1))
    assert injected.problem == ""


class _Stack:
    """A worker with these children."""

    def __init__(self, *children):
        self.children, self.killed, self.is_back = [*children], [], False

    def process(self, name):
        return 100

    def pool(self, leader):
        return self.children

    def signal_one(self, process, number):
        self.killed.append(process)
        self.children = [each for each in self.children if each != process]

    def has_recovered(self, name, *, instead_of):
        return self.is_back


@pytest.mark.parametrize(("children", "victim"), [([101, 102], 102), ([], 100)], ids=["prefork", "threads"])
def test_one_process_that_runs_tasks_is_killed_in_either_pool(children, victim):
    stack = _Stack(*children)
    fault = injections._KillChild(stack, "orders")

    fault.begin()
    assert stack.killed == [victim]
    assert not fault.has_recovered()

    stack.children, stack.is_back = [*children, 103] if children else [], True
    assert fault.has_recovered()


def test_a_broker_that_another_fault_has_stopped_cannot_forget_and_does_not_end_the_drill(
    run_fault, monkeypatch
):
    def connect():
        return kombu.Connection(f"amqp://127.0.0.1:{ports.choose()}//", connect_timeout=1)

    monkeypatch.setattr(injections.current_app, "connection_for_write", connect)
    injected, lines = run_fault(FORGETS, injections._Forget())

    assert "does not answer" in injected.problem
    assert "was not injected" in lines[0]
