"""
The whole drill: place orders, inject faults on schedule, wait until all work is finished, assess.

The client and the faults run in threads; each closes its database session when it ends.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from django.conf import settings
from django.db import DatabaseError, connections
from django.db.models import Count
from django.utils import timezone

from notifications.models import Notification
from orderflow import providers
from orderflow.chaos.assessment import backlog, copies, counters, promises, recovery, response_times, stuck
from orderflow.chaos.assessment.promises import Finding, Ledgers
from orderflow.chaos.assessment.recovery import InjectedFault, Life
from orderflow.chaos.faults import injections
from orderflow.chaos.faults.injections import Injector, NoTarget
from orderflow.chaos.faults.schedule import Fault
from orderflow.chaos.load import planned_orders
from orderflow.chaos.load.client import Client, Placed
from orderflow.chaos.load.planned_orders import PlannedOrder
from orderflow.chaos.own_stack import NotRunning, OwnStack
from orderflow.chaos.report import DrillReport
from orders.clients import tokens
from orders.models import Order, OrderTransition
from outbox.command_lines import counted
from outbox.models import Attempt, DeadLetter, Delivery, OutboxMessage
from outbox.resilience import Outage
from outbox.verification import examination

POLL_INTERVAL = 0.1
"""Seconds between two checks whether a target has recovered: the precision of the recovery times."""

RECOVERY_PATIENCE = 60.0
"""Seconds within which a target must have recovered."""

TARGET_PATIENCE = 20.0
"""Seconds that a fault waits for a target before it is reported as one without effect."""

SETTLE_POLL_INTERVAL = 1.0
"""Seconds between two checks whether all work is finished."""

NOT_A_PROVIDERS = (
    "OperationalError",
    "InterfaceError",
    "CrashLoop",
    "NotAlone",
    "SoftTimeLimitExceeded",
    "TimeLimitExceeded",
)
"""Errors of attempts that concern the broker, the database or a worker: waiting for those is recovery."""

SHORTEST_PLANNED_WAIT = 5.0
"""Seconds; a step waits less than this for another one that works on its order."""

WORKS_WHILE_IT_BEGINS = ("duplicate-delivery", "clock-jump")
"""The faults whose injection takes a while; the others take effect at one moment, when it ends."""

Answer = TypeVar("Answer")


@dataclasses.dataclass(kw_only=True)
class Plan:
    """The parameters of a drill. `stack` None: the stack of the settings, which is not the drill's own."""

    orders: int
    duration: float
    seed: int
    broker: str
    settle: float
    schedule: Sequence[Fault]
    left_out: Mapping[str, str]
    """The kinds of fault that cannot be injected here, and why."""
    stack: OwnStack | None
    command: str


class Drill:
    """One drill; `write` receives the lines of the timeline as they happen."""

    def __init__(self, plan: Plan, write: Callable[[str], None]) -> None:
        self.plan, self._write = plan, write
        self._begun = 0.0
        self._watch = backlog.Watch()
        self._injected: list[InjectedFault] = []
        self._failures: list[BaseException] = []

    def run(self) -> DrillReport:
        """Run the drill and return its report."""
        plan = self.plan
        run = f"drill-{plan.seed}-{timezone.now():%H%M%S}"
        planned_orders.stock(plan.orders)
        if plan.stack:
            copies.install_trigger()
        _, secret = tokens.create(run, scopes=[tokens.WRITE])
        client = Client(f"{settings.WEB_URL}/api/v1", secret)
        self._begun = time.time()
        until = self._begun + plan.duration + plan.settle
        with self._watch:
            placed = self._break_and_place(
                client, planned_orders.draw(plan.orders, seed=plan.seed, run=run), until
            )
            settled_after = self._settle(placed, until=until)
        return self._report(placed, settled_after)

    def _break_and_place(self, client: Client, wanted: Sequence[PlannedOrder], until: float) -> list[Placed]:
        threads = [
            threading.Thread(target=self._inject, args=(fault,), name=str(fault))
            for fault in self.plan.schedule
        ]
        for thread in threads:
            thread.start()
        try:
            placed = client.place_all(wanted, rate=self.plan.orders / self.plan.duration, until=until)
        finally:
            for thread in threads:
                thread.join()
        if self._failures:
            raise self._failures[0]
        accepted = sum(one.is_accepted for one in placed)
        self._log(f"{counted(len(placed), 'order')} placed, {accepted} accepted")
        return placed

    def _inject(self, fault: Fault) -> None:
        try:
            injector = injections.injector_for(
                fault, stack=self.plan.stack, broker_kind=self.plan.broker, seed=self.plan.seed
            )
            self._carry_out(fault, injector)
        except BaseException as failure:
            self._failures.append(failure)
        finally:
            connections.close_all()

    def _carry_out(self, fault: Fault, injector: Injector) -> None:
        time.sleep(max(0.0, self._begun + fault.start - time.time()))
        began_at = time.time()
        injected = InjectedFault(fault=fault, began_at=began_at, ended_at=began_at, recovered_at=began_at)
        try:
            injected.did = self._begin(injector, injected)
        except NotRunning as nothing:
            injected.problem = str(nothing)
            self._injected.append(injected)
            self._log(f"{fault} was not injected: {nothing}")
            return
        if fault.kind not in WORKS_WHILE_IT_BEGINS:
            # It may have waited for the end of another fault before it was injected.
            injected.began_at = time.time()
        self._log(f"{fault.kind}: {injected.did}")
        try:
            time.sleep(fault.lasts)
        finally:
            injected.problem = injector.end()
        injected.ended_at = time.time()
        if injected.problem:
            self._log(f"{fault} had no effect: {injected.problem}")
        self._wait_for_recovery(injector, injected)
        self._injected.append(injected)
        if injected.recovered_at - injected.began_at > POLL_INTERVAL:
            self._log(f"{fault.kind}: over, recovered after {injected.recovered_at - injected.began_at:.1f} s")

    def _begin(self, injector: Injector, injected: InjectedFault) -> str:
        """Inject it, now or as soon as there is a target."""
        until = time.monotonic() + TARGET_PATIENCE
        while True:
            try:
                return _with_database(injector.begin)
            except NoTarget:
                if time.monotonic() > until:
                    raise
            time.sleep(POLL_INTERVAL)
            injected.began_at = injected.ended_at = injected.recovered_at = time.time()

    def _wait_for_recovery(self, injector: Injector, injected: InjectedFault) -> None:
        while not injector.has_recovered():
            if time.time() - injected.ended_at > RECOVERY_PATIENCE:
                injected.problem = f"{recovery.NOT_RECOVERED} after {RECOVERY_PATIENCE:.0f} s"
                break
            time.sleep(POLL_INTERVAL)
        injected.recovered_at = time.time()

    def _settle(self, placed: Sequence[Placed], *, until: float) -> float | None:
        """
        Wait until all work is finished; return the seconds since the last order, None if it did not finish.

        This includes deliveries: a broker may have lost one whose work was done. Work in a dead letter is not
        waited for.
        """
        begun = time.time()
        ids = [one.order_id for one in placed if one.is_accepted]
        while time.time() < until:
            unfinished, given_up = _with_database(lambda: (_unfinished(ids), _given_up()))
            unsent = {
                finding.subject for finding in _with_database(lambda: promises.unsent_notifications(placed))
            }
            outstanding = _with_database(lambda: _outstanding(ids))
            if not unfinished and not unsent and not outstanding:
                self._log("all work is finished")
                return time.time() - begun
            if not outstanding and (unfinished | unsent) <= given_up:
                break
            time.sleep(SETTLE_POLL_INTERVAL)
        self._log("some work is unfinished")
        return None

    def _report(self, placed: Sequence[Placed], settled_after: float | None) -> DrillReport:
        stack = self.plan.stack
        ids = [one.order_id for one in placed if one.is_accepted]
        ledgers = Ledgers.read(mail_url=stack.mail_url if stack else "")
        findings = [
            *promises.unanswered(placed),
            *promises.check(placed, ledgers),
            *promises.unsent_notifications(placed),
            *promises.dead_letters(since=dt.datetime.fromtimestamp(self._begun, dt.UTC)),
            *stuck.find(ids),
            *(counters.compare() if stack else []),
        ]
        real = [one for one in sorted(self._injected, key=lambda one: one.began_at) if not one.problem]
        never_recovered = [one for one in self._injected if one.problem.startswith(recovery.NOT_RECOVERED)]
        findings += [
            Finding(rule="not recovered", subject=str(one.fault), detail=one.problem) for one in never_recovered
        ]
        orders = _orders_lives(ids)
        busy = backlog.worked_off(
            self._watch.samples, sorted(at for life in orders.values() for at in life.moves)
        )
        lives = {"": orders} | {channel: _notification_lives(channel) for channel in providers.CHANNELS}
        return DrillReport(
            seed=self.plan.seed,
            broker=self.plan.broker,
            command=self.plan.command,
            begun_at=self._begun,
            schedule=list(self.plan.schedule),
            left_out=self.plan.left_out,
            injected=sorted(self._injected, key=lambda one: one.began_at),
            placed=placed,
            statuses=_statuses(ids),
            settled_after=settled_after,
            busy_seconds=sum(end - begin for begin, end in busy),
            answers=response_times.judge(placed, real),
            recoveries=[recovery.measure(one, lives[one.concerns], real, busy=busy) for one in real],
            repeats=promises.repeats(ledgers),
            copies=copies.count(real) if stack else None,
            findings=findings,
            verification=examination.run(providers=True),
        )

    def _log(self, text: str) -> None:
        self._write(f"{time.time() - self._begun:6.1f} s  {text}")


def _with_database(query: Callable[[], Answer]) -> Answer:
    """Query the database until it answers: it may be the target of a fault."""
    end = time.monotonic() + RECOVERY_PATIENCE
    while True:
        try:
            return query()
        except DatabaseError:
            connections.close_all()
            if time.monotonic() > end:
                raise
            time.sleep(POLL_INTERVAL)


def _unfinished(ids: Sequence[str]) -> set[str]:
    return set(Order.objects.unfinished().filter(pk__in=ids).values_list("number", flat=True))


def _outstanding(ids: Sequence[str]) -> bool:
    """Whether there is a message of these orders to deliver, or an unfinished delivery."""
    messages = OutboxMessage.objects.filter(key__in=ids)
    pending = messages.filter(status=OutboxMessage.Status.PENDING)
    return pending.exists() or Delivery.objects.filter(message_id__in=messages.values("pk")).exists()


def _given_up() -> set[str]:
    """The numbers of the orders that are in an open dead letter."""
    keys = [key for key in DeadLetter.objects.unresolved().values_list("key", flat=True) if key]
    return set(Order.objects.filter(pk__in=keys).values_list("number", flat=True))


def _orders_lives(ids: Sequence[str]) -> dict[str, Life]:
    """The moves of the drill's orders, by order number."""
    moves: dict[str, list[float]] = {}
    for number, at in (
        OrderTransition.objects.filter(order__pk__in=ids).order_by("id").values_list("order__number", "at")
    ):
        moves.setdefault(number, []).append(at.timestamp())
    waits = _planned_waits(ids)
    final = set(Order.objects.filter(pk__in=ids, finished_at__isnull=False).values_list("number", flat=True))
    return {
        number: Life(moves=sorted(at), is_over=number in final, waits=waits.get(number, ()))
        for number, at in moves.items()
    }


def _planned_waits(ids: Sequence[str]) -> dict[str, list[tuple[float, float]]]:
    """The intervals in which orders waited for a provider as planned, by order number, from the attempts."""
    numbers = {str(pk): number for pk, number in Order.objects.filter(pk__in=ids).values_list("pk", "number")}
    keys = dict(OutboxMessage.objects.filter(key__in=numbers).values_list("pk", "key"))
    waits: dict[str, list[tuple[float, float]]] = {}
    for attempt in Attempt.objects.filter(
        message_id__in=keys, consumer__startswith="orders.", next_try_at__isnull=False
    ).exclude(error_class__in=NOT_A_PROVIDERS):
        assert attempt.next_try_at is not None
        begin, end = attempt.failed_at.timestamp(), attempt.next_try_at.timestamp()
        # Other short waits are those for a step that is running, perhaps in a dead worker.
        if attempt.error_class == Outage.__name__ or end - begin >= SHORTEST_PLANNED_WAIT:
            waits.setdefault(numbers[keys[attempt.message_id]], []).append((begin, end))
    return waits


def _notification_lives(channel: str) -> dict[str, Life]:
    """The times from a notification's message to its sending, by order number and template."""
    notifications = Notification.objects.filter(channel=channel)
    made = dict(
        OutboxMessage.objects.filter(pk__in=notifications.values("message_id")).values_list("pk", "created_at")
    )
    return {
        f"{notification.order_number} {notification.template}": Life(
            moves=[
                made[notification.message_id].timestamp(),
                *([notification.sent_at.timestamp()] if notification.sent_at else []),
            ],
            is_over=notification.status not in (Notification.Status.PENDING, Notification.Status.SENDING),
        )
        for notification in notifications
    }


def _statuses(ids: Sequence[str]) -> dict[str, int]:
    rows = Order.objects.filter(pk__in=ids).values_list("status").annotate(count=Count("pk"))
    return {str(status): count for status, count in rows.order_by("status")}
