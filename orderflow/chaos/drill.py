"""
The whole drill: place orders, break things on schedule, let everything settle, compare, judge.

The client, the faults and the clock run in threads of their own; each closes its database session when it ends.
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
from orderflow.chaos.assessment import backlog, copies, promises, recovery, response_times, stuck
from orderflow.chaos.assessment.promises import Finding, Ledgers
from orderflow.chaos.assessment.recovery import Life, Struck
from orderflow.chaos.faults import injections
from orderflow.chaos.faults.injections import Act, StruckNothing
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

LOOK_AGAIN = 0.1
"""Seconds between two looks whether something is back: the precision of the recovery times."""

BACK_PATIENCE = 60.0
"""Seconds within which what was broken must be back at all."""

STRIKE_PATIENCE = 20.0
"""Seconds that a fault waits for something to strike, before it is reported as one that has struck nothing."""

SETTLE_LOOK = 1.0
"""Seconds between two looks whether everything has come to its end."""

NOT_A_PROVIDERS = (
    "OperationalError",
    "InterfaceError",
    "CrashLoop",
    "NotAlone",
    "SoftTimeLimitExceeded",
    "TimeLimitExceeded",
)
"""Errors of attempts that speak of the broker, the database or a worker: waiting for those is recovery."""

SHORTEST_PLANNED_WAIT = 5.0
"""Seconds; a step waits less than that for another one that is at work on its order."""

WORKS_WHILE_IT_BEGINS = ("duplicate-delivery", "clock-jump")
"""The faults that do something for a while; the others strike at one moment, at the end of their beginning."""

Answer = TypeVar("Answer")


@dataclasses.dataclass(kw_only=True)
class Plan:
    """What is to be done. `stack` None: the stack of the settings, which is not the drill's own."""

    orders: int
    duration: float
    seed: int
    broker: str
    settle: float
    schedule: Sequence[Fault]
    left_out: Mapping[str, str]
    """The kinds of fault that cannot strike here, and why."""
    stack: OwnStack | None
    command: str


class Drill:
    """One drill; `say` gets the lines of the timeline as they happen."""

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self.plan, self._say = plan, say
        self._begun = 0.0
        self._watch = backlog.Watch()
        self._struck: list[Struck] = []
        self._failures: list[BaseException] = []

    def run(self) -> DrillReport:
        """Run it all and return what came of it."""
        plan = self.plan
        run = f"drill-{plan.seed}-{timezone.now():%H%M%S}"
        planned_orders.stock(plan.orders)
        if plan.stack:
            copies.watch()
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
            threading.Thread(target=self._strike, args=(fault,), name=str(fault))
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
        self._tell(f"{counted(len(placed), 'order')} placed, {accepted} accepted")
        return placed

    def _strike(self, fault: Fault) -> None:
        try:
            act = injections.act_of(
                fault, stack=self.plan.stack, broker_kind=self.plan.broker, seed=self.plan.seed
            )
            self._carry_out(fault, act)
        except BaseException as failure:
            self._failures.append(failure)
        finally:
            connections.close_all()

    def _carry_out(self, fault: Fault, act: Act) -> None:
        time.sleep(max(0.0, self._begun + fault.start - time.time()))
        began_at = time.time()
        struck = Struck(fault=fault, began_at=began_at, ended_at=began_at, back_at=began_at)
        try:
            struck.did = self._begin(act, struck)
        except NotRunning as nothing:
            struck.problem = str(nothing)
            self._struck.append(struck)
            self._tell(f"{fault} did not strike: {nothing}")
            return
        if fault.kind not in WORKS_WHILE_IT_BEGINS:
            # It may have waited for the end of another fault before it struck.
            struck.began_at = time.time()
        self._tell(f"{fault.kind}: {struck.did}")
        try:
            time.sleep(fault.lasts)
        finally:
            struck.problem = act.end()
        struck.ended_at = time.time()
        if struck.problem:
            self._tell(f"{fault} has struck nothing: {struck.problem}")
        self._wait_until_back(act, struck)
        self._struck.append(struck)
        if struck.back_at - struck.began_at > LOOK_AGAIN:
            self._tell(f"{fault.kind}: over, back after {struck.back_at - struck.began_at:.1f} s")

    def _begin(self, act: Act, struck: Struck) -> str:
        """Let it strike, now or as soon as there is something to strike."""
        until = time.monotonic() + STRIKE_PATIENCE
        while True:
            try:
                return _with_database(act.begin)
            except StruckNothing:
                if time.monotonic() > until:
                    raise
            time.sleep(LOOK_AGAIN)
            struck.began_at = struck.ended_at = struck.back_at = time.time()

    def _wait_until_back(self, act: Act, struck: Struck) -> None:
        while not act.is_back():
            if time.time() - struck.ended_at > BACK_PATIENCE:
                struck.problem = f"{recovery.NOT_BACK} after {BACK_PATIENCE:.0f} s"
                break
            time.sleep(LOOK_AGAIN)
        struck.back_at = time.time()

    def _settle(self, placed: Sequence[Placed], *, until: float) -> float | None:
        """
        Wait until all has come to its end; return the seconds since the last order, None if it did not.

        Also of deliveries: a broker may have lost one whose work was done. What lies in a dead letter is not
        waited for.
        """
        begun = time.time()
        ids = [one.order_id for one in placed if one.is_accepted]
        while time.time() < until:
            unfinished, given_up = _with_database(lambda: (_unfinished(ids), _given_up()))
            untold = {finding.subject for finding in _with_database(lambda: promises.untold(placed))}
            outstanding = _with_database(lambda: _outstanding(ids))
            if not unfinished and not untold and not outstanding:
                self._tell("everything has settled")
                return time.time() - begun
            if not outstanding and (unfinished | untold) <= given_up:
                break
            time.sleep(SETTLE_LOOK)
        self._tell("not everything has settled")
        return None

    def _report(self, placed: Sequence[Placed], settled_after: float | None) -> DrillReport:
        stack = self.plan.stack
        ids = [one.order_id for one in placed if one.is_accepted]
        ledgers = Ledgers.read(mail_url=stack.mail_url if stack else "")
        findings = [
            *promises.unanswered(placed),
            *promises.check(placed, ledgers),
            *promises.untold(placed),
            *promises.dead_letters(since=dt.datetime.fromtimestamp(self._begun, dt.UTC)),
            *stuck.find(ids),
        ]
        real = [one for one in sorted(self._struck, key=lambda one: one.began_at) if not one.problem]
        never_back = [one for one in self._struck if one.problem.startswith(recovery.NOT_BACK)]
        findings += [Finding(rule="not back", subject=str(one.fault), detail=one.problem) for one in never_back]
        orders = _orders_lives(ids)
        busy = backlog.worked_off(
            self._watch.samples, sorted(at for life in orders.values() for at in life.moves)
        )
        lives = {"": orders} | {channel: _news_lives(channel) for channel in recovery.CHANNELS}
        return DrillReport(
            seed=self.plan.seed,
            broker=self.plan.broker,
            command=self.plan.command,
            begun_at=self._begun,
            schedule=list(self.plan.schedule),
            left_out=self.plan.left_out,
            struck=sorted(self._struck, key=lambda one: one.began_at),
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

    def _tell(self, text: str) -> None:
        self._say(f"{time.time() - self._begun:6.1f} s  {text}")


def _with_database(ask: Callable[[], Answer]) -> Answer:
    """Ask the database until it answers: it is one of the things that are broken here."""
    end = time.monotonic() + BACK_PATIENCE
    while True:
        try:
            return ask()
        except DatabaseError:
            connections.close_all()
            if time.monotonic() > end:
                raise
            time.sleep(LOOK_AGAIN)


def _unfinished(ids: Sequence[str]) -> set[str]:
    return set(Order.objects.unfinished().filter(pk__in=ids).values_list("number", flat=True))


def _outstanding(ids: Sequence[str]) -> bool:
    """Whether there is a message of these orders to deliver, or a delivery that has not ended."""
    messages = OutboxMessage.objects.filter(key__in=ids)
    pending = messages.filter(status=OutboxMessage.Status.PENDING)
    return pending.exists() or Delivery.objects.filter(message_id__in=messages.values("pk")).exists()


def _given_up() -> set[str]:
    """The numbers of the orders that lie in an open dead letter."""
    keys = [key for key in DeadLetter.objects.unresolved().values_list("key", flat=True) if key]
    return set(Order.objects.filter(pk__in=keys).values_list("number", flat=True))


def _orders_lives(ids: Sequence[str]) -> dict[str, Life]:
    """The moves of the drill's orders, by their numbers."""
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
    """When an order waited for a provider on purpose, by the orders' numbers: the attempts say until when."""
    numbers = {str(pk): number for pk, number in Order.objects.filter(pk__in=ids).values_list("pk", "number")}
    keys = dict(OutboxMessage.objects.filter(key__in=numbers).values_list("pk", "key"))
    waits: dict[str, list[tuple[float, float]]] = {}
    for attempt in Attempt.objects.filter(
        message_id__in=keys, consumer__startswith="orders.", next_try_at__isnull=False
    ).exclude(error_class__in=NOT_A_PROVIDERS):
        assert attempt.next_try_at is not None
        begin, end = attempt.failed_at.timestamp(), attempt.next_try_at.timestamp()
        # Other short waits are those for a step that is at work, perhaps in a worker that is dead.
        if attempt.error_class == Outage.__name__ or end - begin >= SHORTEST_PLANNED_WAIT:
            waits.setdefault(numbers[keys[attempt.message_id]], []).append((begin, end))
    return waits


def _news_lives(channel: str) -> dict[str, Life]:
    """From the message of a piece of news to its sending, by the orders' numbers and templates."""
    told = Notification.objects.filter(channel=channel)
    made = dict(OutboxMessage.objects.filter(pk__in=told.values("message_id")).values_list("pk", "created_at"))
    return {
        f"{news.order_number} {news.template}": Life(
            moves=[made[news.message_id].timestamp(), *([news.sent_at.timestamp()] if news.sent_at else [])],
            is_over=news.status not in (Notification.Status.PENDING, Notification.Status.SENDING),
        )
        for news in told
    }


def _statuses(ids: Sequence[str]) -> dict[str, int]:
    rows = Order.objects.filter(pk__in=ids).values_list("status").annotate(count=Count("pk"))
    return {str(status): count for status, count in rows.order_by("status")}
