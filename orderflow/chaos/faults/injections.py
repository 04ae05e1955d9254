"""
How each fault is injected and ended, and how recovery of its target is detected.

A fault acts on the drill's own processes by process id, on connections through the proxy, on the sandbox
through its control API, or on the database through the helpers that the tests use.
"""

from __future__ import annotations

import datetime as dt
import signal
import threading
from typing import Any, Protocol

from celery import current_app
from django.db import connections
from django.utils import timezone
from kombu.exceptions import OperationalError

from orderflow.chaos.faults.providers import ProviderFault
from orderflow.chaos.faults.schedule import Fault
from orderflow.chaos.own_stack import NotRunning, OwnStack
from orders import testing as orders_testing  # noqa: F401 - registers what must not be changed
from outbox import redelivery, testing
from outbox.broker import dispatch
from outbox.models import OutboxMessage
from outbox.relay import relay

COPIES = 2
"""The number of relays that deliver the same messages at once when messages are duplicated."""

MOST_DUPLICATED = 50
"""Messages that are duplicated at once: the test is whether it does harm, not how much load a machine bears."""


class NoTarget(NotRunning):
    """There is no target at this moment; there may be one a moment later."""


class Injector(Protocol):
    """Injects one fault."""

    def begin(self) -> str:
        """
        Inject the fault; return what was done, for the timeline.

        Raises:
            NotRunning: if there is no target.
        """
        ...

    def end(self) -> str:
        """Remove the fault; return why it had no effect, or an empty string if it had one."""
        ...

    def has_recovered(self) -> bool:
        """Whether the target has recovered."""
        ...


class _Momentary:
    """A fault that is over as soon as it has been injected."""

    def end(self) -> str:
        return ""

    def has_recovered(self) -> bool:
        return True


class _KillProcess(_Momentary):
    """SIGKILL for a process and all its children, as in the loss of a machine."""

    def __init__(self, stack: OwnStack, name: str) -> None:
        self.stack, self.name, self.process = stack, name, 0

    def begin(self) -> str:
        self.process = self.stack.process(self.name)
        self.stack.signal_all(self.process, signal.SIGKILL)
        return f"{self.name}, process {self.process} and its children"

    def has_recovered(self) -> bool:
        return self.stack.has_recovered(self.name, instead_of=self.process)


class _KillLeader(_KillProcess):
    """SIGKILL for the node of a cluster that leads a queue: the others elect another leader."""

    def __init__(self, stack: OwnStack, queue: str) -> None:
        super().__init__(stack, "")
        self.queue = queue

    def begin(self) -> str:
        self.name = self.stack.leader_of(self.queue)
        return f"leader of {self.queue}: {super().begin()}"


class _KillChild(_Momentary):
    """
    SIGKILL for one process that runs tasks, as the kernel does when memory runs out.

    It is a child of a prefork pool, or, where tasks run in threads, the worker itself.
    """

    def __init__(self, stack: OwnStack, name: str) -> None:
        self.stack, self.name = stack, name
        self.leader, self.size, self.victim = 0, 0, 0

    def begin(self) -> str:
        self.leader = self.stack.process(self.name)
        pool = self.stack.pool(self.leader)
        self.size, self.victim = len(pool), pool[-1] if pool else self.leader
        self.stack.signal_one(self.victim, signal.SIGKILL)
        return f"child {self.victim} of {self.name}" if pool else f"{self.name}, process {self.victim}"

    def has_recovered(self) -> bool:
        pool = self.stack.pool(self.leader)
        whole = bool(self.size) and len(pool) >= self.size and self.victim not in pool
        return whole or self.stack.has_recovered(self.name, instead_of=self.leader)


class _Pause:
    """SIGSTOP for a worker and its pool, then SIGCONT: it continues late, as if nothing had happened."""

    def __init__(self, stack: OwnStack, name: str) -> None:
        self.stack, self.name, self.process = stack, name, 0

    def begin(self) -> str:
        self.process = self.stack.process(self.name)
        self.stack.signal_all(self.process, signal.SIGSTOP)
        return f"{self.name}, process {self.process}"

    def end(self) -> str:
        self.stack.signal_all(self.process, signal.SIGCONT)
        return ""

    def has_recovered(self) -> bool:
        return True


class _SkewClock:
    """The clock of one process and its children is off by a constant number of seconds for a while."""

    def __init__(self, stack: OwnStack, name: str, seconds: float) -> None:
        self.stack, self.name, self.seconds = stack, name, seconds

    def begin(self) -> str:
        self.stack.set_clock(self.name, self.seconds)
        return f"{self.name}, {self.seconds:+.0f} s"

    def end(self) -> str:
        self.stack.set_clock(self.name, 0)
        return ""

    def has_recovered(self) -> bool:
        return True


class _RestartDatabase(_Momentary):
    """A database that crashes (SIGKILL), or shuts down without waiting for its clients (SIGINT)."""

    def __init__(self, stack: OwnStack, how: str) -> None:
        self.stack, self.process = stack, 0
        self.number = signal.SIGKILL if how == "kill" else signal.SIGINT

    def begin(self) -> str:
        self.process = self.stack.process("postgres")
        self.stack.signal_one(self.process, self.number)
        return f"postgres, process {self.process}, {self.number.name}"

    def has_recovered(self) -> bool:
        return self.stack.has_recovered("postgres", instead_of=self.process)


class _Network:
    """Disturbed connections to a server."""

    def __init__(
        self, stack: OwnStack, routes: tuple[str, ...], disturbance: dict[str, Any], end_state: dict[str, Any]
    ):
        self.stack = stack
        self.disturbance, self.end_state = dict.fromkeys(routes, disturbance), dict.fromkeys(routes, end_state)

    def begin(self) -> str:
        self.stack.network(**self.disturbance)
        return ", ".join(f"{name}: {disturbance}" for name, disturbance in self.disturbance.items())

    def end(self) -> str:
        self.stack.network(**self.end_state)
        return ""

    def has_recovered(self) -> bool:
        return True


def _broker_errors(connection: Any) -> tuple[type[BaseException], ...]:
    return (OperationalError, *connection.connection_errors, *connection.channel_errors)


class _Forget(_Momentary):
    """A broker that has lost all its messages, as after a failover to an empty replica."""

    def begin(self) -> str:
        with current_app.connection_for_write() as connection:
            try:
                channel: Any = connection.default_channel
                waiting = sum(int(queue(channel).purge() or 0) for queue in current_app.amqp.queues.values())
                taken = self._forget_unacknowledged(channel.client) if hasattr(channel, "client") else 0
            except _broker_errors(connection) as down:
                raise NoTarget(f"the broker does not answer: {down!r}") from down  # another fault's doing
        if not waiting + taken:
            raise NoTarget("the broker held no messages")
        return f"{waiting} waiting messages, {taken} lists of unacknowledged ones"

    @staticmethod
    def _forget_unacknowledged(redis: Any) -> int:
        """
        Redis keeps messages that workers have taken in separate keys; RabbitMQ's end with their connections.
        """
        names = list(redis.scan_iter("unacked-*"))
        return int(redis.delete(*names)) if names else 0


class _DeliverAgain(_Momentary):
    """Every message of the last seconds is processed again: by several relays at once, and by redelivery."""

    def __init__(self, age: float) -> None:
        self.age = dt.timedelta(seconds=age)

    def begin(self) -> str:
        rows = list(
            OutboxMessage.objects.filter(
                status=OutboxMessage.Status.PUBLISHED, published_at__gt=timezone.now() - self.age
            ).order_by("-published_at")[:MOST_DUPLICATED]
        )
        if not rows:
            raise NoTarget(f"no message was published in the last {self.age.total_seconds():.0f} s")
        failures: list[str] = []

        def start_all() -> None:
            try:
                for row in rows:
                    relay.start(row)
            except dispatch.BrokerDown as down:
                failures.append(str(down))
            finally:
                connections.close_all()

        relays = [threading.Thread(target=start_all) for _ in range(COPIES)]
        for thread in relays:
            thread.start()
        for thread in relays:
            thread.join()
        redelivery.redeliver([row.pk for row in rows])
        unsent = f"; the broker was down for {len(failures)} of them" if failures else ""
        return f"{len(rows)} messages, {COPIES} times and once redelivered{unsent}"


class _JumpClock(_Momentary):
    """All due times and leases are suddenly nearer by this time, or over."""

    def __init__(self, seconds: float) -> None:
        self.span = dt.timedelta(seconds=seconds)

    def begin(self) -> str:
        testing.pass_time(self.span)
        return f"{self.span.total_seconds():.0f} s"


def injector_for(fault: Fault, *, stack: OwnStack | None, broker_kind: str, seed: int) -> Injector:
    """
    Return the injector for a fault; `broker_kind` is `redis` or `rabbitmq`.

    Raises:
        NotRunning: if the fault needs the drill's own processes and there are none.
    """
    if fault.kind in ProviderFault.KINDS:
        return ProviderFault(fault, stack=stack, seed=seed)
    if fault.kind == "duplicate-delivery":
        return _DeliverAgain(fault.strength)
    if fault.kind == "clock-jump":
        return _JumpClock(fault.strength)
    if stack is None:
        raise NotRunning(f"{fault.kind} needs the drill's own stack")
    # On Redis, one server is both the broker and the shared state of the workers.
    more = tuple(f"broker-{number}" for number in range(2, stack.nodes + 1))
    broker_routes = ("broker", "shared") if broker_kind == "redis" else ("broker", *more)
    match fault.kind:
        case "kill-worker" | "kill-relay" | "kill-beat":
            return _KillProcess(stack, fault.target)
        case "kill-leader":
            return _KillLeader(stack, fault.target)
        case "kill-child":
            return _KillChild(stack, fault.target)
        case "pause-worker":
            return _Pause(stack, fault.target)
        case "clock-skew":
            return _SkewClock(stack, fault.target, fault.strength)
        case "broker-down":
            return _Network(stack, broker_routes, {fault.target: True}, {fault.target: False})
        case "broker-forgets":
            return _Forget()
        case "broker-restart":
            return _KillProcess(stack, "valkey" if broker_kind == "redis" else "rabbitmq")
        case "db-restart":
            return _RestartDatabase(stack, fault.target)
        case "network-latency":
            routes = broker_routes if fault.target == "broker" else ("database",)
            return _Network(stack, routes, {"latency": fault.strength}, {"latency": 0.0})
    raise ValueError(f"no such fault: {fault.kind}")
