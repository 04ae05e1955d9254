"""
Whatever happens to orders, in whatever sequence: the promises hold, and in the end all is done once.

What may happen: customers place and cancel, also while a provider is being called; workers die, are slow or
away; the broker repeats, holds back and loses whatever it has, all or some; providers fail in every way and
leave charges undecided; clocks are wrong; operators replay and discard. Backups that are restored come on top
in `tests/restore`.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import time

import hypothesis
import pytest
from celery import current_app
from django.core.management import call_command
from django.db import connection, connections
from django.db.models import F
from hypothesis import strategies
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from orders import services
from orders import sweep as late_orders
from orders.models import IdempotencyRecord, Order
from outbox import crash_points, testing
from outbox.database.clock import now
from outbox.dead_letters import campaigns, resolving
from outbox.models import DeadLetter, Delivery, OutboxMessage, PeriodicRun
from outbox.relay import probes, relay
from outbox.verification import examination
from tests.conftest import close_breakers
from tests.crash.conftest import die_at, forget_everything, is_quiet, recover, restore_unacknowledged
from tests.crash.stories import EVERY_WAY
from tests.crash.test_every_crash_point import DIES_IN
from tests.factories import ProductFactory, place
from tests.properties.broker import copies, forget_some
from tests.properties.clocks import Clock
from tests.slow import but_first
from tests.threads import switches

SPANS = [dt.timedelta(seconds=seconds) for seconds in (1, 15, 60, 600)]
CARDS = ["pm_card_visa", "pm_card_visa", "pm_card_visa_chargeDeclined", "pm_no_such_card"]
FAULTS = [
    {"fault": "error", "status": 503},
    {"fault": "error", "status": 500},
    {"fault": "error", "status": 401},
    {"fault": "rate_limit", "retry_after": 20},
    {"fault": "refuse"},
    {"fault": "drop_before"},
    {"fault": "drop_after"},
    {"fault": "malformed"},
]
FAULTY = ["payments", "warehouse", "sms"]
"""Providers that honour keys or have a look-up. The others may deliver twice after a lost response."""

UNDECIDED = ["processing", "requires_capture", "requires_action"]
"""States in which the payment provider may leave a charge."""

WITHIN_CALLS = sorted(
    point for point in DIES_IN if point.startswith(("charge.", "fulfill.", "refund.", "stranded."))
)
"""Points before, within and after calls of a provider. No transaction is open there."""

AHEAD = [dt.timedelta(seconds=seconds) for seconds in (0, 3, -3, 3600, -3600, 86_400, -86_400)]

TICK, TICKS = dt.timedelta(seconds=8), 15
"""The time between two sweeps while time passes in small steps, and the number of steps in two minutes."""

HEARD_OF_WITHIN = dt.timedelta(seconds=80)
"""
A lost copy is detected and sent again within this time if everything is consumed at once, plus the time of the
machine.
"""

PARTS = [f"part-{number}" for number in range(1, 5)]
"""A hundred random sequences, in parts that can run separately. Each part draws its own."""

AN_ORDER = {
    "product": strategies.integers(0, 1),
    "card": strategies.sampled_from(CARDS),
    "notified": strategies.booleans(),
}


class Lives(RuleBasedStateMachine):
    """A state machine of orders, customers, operators, workers, providers and the clock."""

    world = settings = clock = None
    threads = 1  # of each worker
    stock = 5
    examined = ""  # the position in the database's log; empty: not examined with the current clock

    @initialize(**AN_ORDER)
    def begin_anew(self, **order):
        """Start with one order: a sequence may leave out any rule, and without orders little can happen."""
        call_command("flush", interactive=False, verbosity=0, reset_sequences=False)
        self.world.clear()
        forget_everything()
        close_breakers()
        self.clock.put(dt.timedelta())
        self.late = (
            set()
        )  # copies that a dead worker held, or that the broker duplicated: others may overtake them
        self.products = [ProductFactory(stock=self.stock), ProductFactory(sku="NOSHIP-any")]
        self.place(**order)

    @rule(**AN_ORDER)
    def place(self, product, card, notified):
        contact = EVERY_WAY if notified else services.Contact()
        place(self.products[product], payment_method=card, contact=contact)

    @precondition(lambda self: Order.objects.unfinished().exists())
    @rule(which=strategies.integers(0, 20))
    def cancel(self, which):
        orders = list(Order.objects.order_by("pk"))
        order = orders[which % len(orders)]
        try:
            services.request_cancellation(order_id=order.pk, requested_by="customer")
        except services.NotCancellable:
            assert order.is_final

    @rule()
    def relay(self):
        relay.drain()

    @rule(how_many=strategies.integers(1, 4), redelivered=strategies.booleans(), inline=strategies.booleans())
    def deliver(self, how_many, redelivered, inline):
        self.settings.OUTBOX_CHAIN_INLINE_SECONDS = 60 if inline else 0
        self.deliver_next(how_many, redelivered=redelivered)

    def deliver_next(self, how_many, *, redelivered=False):
        deliver(how_many, redelivered=redelivered, threads=self.threads)

    @precondition(lambda self: OutboxMessage.objects.exists())
    @rule(which=strategies.integers(0, 20))
    def send_a_copy(self, which):
        messages = list(OutboxMessage.objects.order_by("pk"))
        relay.start(messages[which % len(messages)])
        self.late |= copies()

    @rule(point=strategies.sampled_from(sorted(point for point, story in DIES_IN.items() if story)))
    def die(self, point):
        die_at(point, lambda: (relay.drain(), self.deliver_next(3)))
        self.late |= copies()

    @precondition(lambda self: Order.objects.unfinished().exists())
    @rule(
        point=strategies.sampled_from(WITHIN_CALLS), inline=strategies.booleans(), loses=strategies.booleans()
    )
    def cancel_within_a_call(self, point, inline, loses):
        """Customers cancel during a call of a provider, and the broker may lose their request."""
        self.settings.OUTBOX_CHAIN_INLINE_SECONDS = 60 if inline else 0
        with meanwhile(point, cancel_everything):
            relay.drain()
            self.deliver_next(4)
        if loses:
            relay.drain()
            forget_everything()

    @rule()
    def restore(self):
        restore_unacknowledged()
        self.late |= copies()

    @rule()
    def lose(self):
        forget_everything()

    @rule(which=strategies.integers(1, 255))
    def lose_some(self, which):
        relay.drain()
        forget_some(lambda position: bool(which >> position % 8 & 1))

    @rule(ahead=strategies.sampled_from(AHEAD))
    def set_the_clock(self, ahead):
        self.clock.put(ahead)
        self.examined = ""

    @rule(rate=strategies.integers(0, 2))
    def fall_behind(self, rate):
        """Consumers are slow or absent for two minutes."""
        for _ in range(TICKS):
            self.tick(TICK)
            self.deliver_next(rate)

    @rule()
    def keep_up(self):
        """Consumers take everything at once for two minutes: after that no message is lost."""
        began = time.monotonic()
        for _ in range(TICKS):
            self.tick(TICK)
            self.deliver_next(testing.MOST_TASKS)
        heard_of_within = HEARD_OF_WITHIN + dt.timedelta(seconds=time.monotonic() - began)
        unheard_of = Delivery.objects.filter(status=Delivery.Status.SENT, sent_at__lt=now() - heard_of_within)
        assert not unheard_of.exists(), list(unheard_of.values())

    @rule(span=strategies.sampled_from(SPANS))
    def pass_time(self, span):
        self.tick(span)

    def tick(self, span):
        """Let time pass and run beat's tasks. No waiting copy is sent again."""
        testing.pass_time(span)
        close_breakers()
        waiting = outstanding(status=Delivery.Status.SENT) & copies() - self.late
        late_orders.resume_overdue()
        probes.sweep()
        campaigns.end_finished()
        assert waiting <= outstanding(), waiting - outstanding()
        relay.drain()

    @rule(state=strategies.sampled_from(UNDECIDED))
    def leave_the_charge_undecided(self, state):
        self.world.payments.control(fault="state", state=state, match="-charge", times=1)

    @rule()
    def decide(self):
        decide_charges(self.world)

    @rule(server=strategies.sampled_from(FAULTY), fault=strategies.sampled_from(FAULTS))
    def fail(self, server, fault):
        getattr(self.world, server).control(**fault, times=1)

    @rule()
    def replay(self):
        mend_and_replay()

    @rule()
    def discard(self):
        resolving.discard(DeadLetter.objects.all(), by="on call", reason="a property test")

    @invariant()
    def promises_hold(self):
        """Examine all invariants. Many steps write nothing; then the previous result still holds."""
        if end_of_log() != self.examined:
            self.examine()
            self.examined = end_of_log()

    def examine(self, **options):
        """Examine all invariants, with periodic tasks counted as done, because the machine may be slow."""
        testing.do_periodic_tasks()
        report = examination.run(**options)
        assert report.passed, failures(report)

    def teardown(self):
        self.let_all_end()
        self.all_has_ended_well()

    def all_has_ended_well(self):
        assert is_quiet(), list(Order.objects.unfinished().values_list("number", "status", "due_at"))
        assert not DeadLetter.objects.unresolved().exists()
        self.examine(providers=True)

    def let_all_end(self):
        for name in FAULTY:
            getattr(self.world, name).clear_faults()
        for _ in range(4):
            decide_charges(self.world)
            recover()
            mend_and_replay()


@contextlib.contextmanager
def meanwhile(point, act):
    """Act once when this process reaches a crash point."""

    def once(reached):
        if reached == point:
            crash_points.disarm()
            act()

    crash_points.arm(once)
    try:
        yield
    finally:
        crash_points.disarm()


def end_of_log():
    """The end of the database server's log, which grows only if something is written."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_current_wal_insert_lsn()::text")
        return cursor.fetchone()[0]


def outstanding(**which):
    """The unfinished deliveries, as the copies that they wait for."""
    found = Delivery.objects.filter(**which).values_list("message_id", "workflow", "generation")
    return {(str(message_id), workflow, generation) for message_id, workflow, generation in found}


def cancel_everything():
    for order in Order.objects.unfinished().order_by("pk"):
        with contextlib.suppress(services.NotCancellable):
            services.request_cancellation(order_id=order.pk, requested_by="customer")


def decide_charges(world):
    """Let the payment provider capture undecided charges."""
    for intent in world.payments.ledger(kind="payment_intent"):
        if intent["status"] in ("processing", "requires_capture"):
            captured = {"status": "succeeded", "amount_received": intent["amount"]}
            world.payments.change("payment_intent", intent["id"], **captured)


def deliver(how_many, *, redelivered, threads=1):
    """Run the next messages of the broker, as many at the same time as there are threads."""
    with current_app.connection_for_read() as link:
        queues = [queue(link.default_channel) for queue in current_app.amqp.queues.values()]
        while how_many > 0:
            taken = [testing._next_message(queues) for _ in range(min(how_many, threads))]
            messages = [message for message in taken if message]
            if threads > 1:
                run_at_once(messages, redelivered=redelivered)
            else:
                for message in messages:
                    testing.run(message, redelivered=redelivered)
            if len(messages) < len(taken):
                return
            how_many -= len(messages)


class _Unacknowledged:
    """A message that its thread does not acknowledge: in a pool of threads, the main loop does it."""

    def __init__(self, message):
        self._message = message

    def __getattr__(self, name):
        return getattr(self._message, name)

    def ack(self):
        pass


def run_at_once(messages, *, redelivered):
    """Run messages in the threads of one process, and acknowledge them in this one."""

    def run(message):
        try:
            testing.run(_Unacknowledged(message), redelivered=redelivered)
        finally:
            connections.close_all()

    if messages:
        switches.run(*[functools.partial(run, message) for message in messages])
    for message in messages:
        message.ack()


def mend_and_replay():
    Order.objects.filter(payment_method="pm_no_such_card").update(payment_method="pm_card_visa")
    resolving.replay(DeadLetter.objects.all(), by="on call", reason="a property test")


def failures(report):
    return [finding.as_json() for finding in report.findings if finding.verdict not in examination.PASSING]


@pytest.fixture
def machine(request, drain, world, settings, monkeypatch):
    """The class of machines; each runs one sequence. A parameter is the number of threads of each worker."""

    class Machine(Lives):
        pass

    Machine.world, Machine.settings, Machine.clock = world, settings, Clock(monkeypatch)
    Machine.threads = getattr(request, "param", 1)
    return Machine


@pytest.fixture
def live(machine):
    """Run random sequences of events."""

    def live(*, examples, steps, derandomize):
        options = hypothesis.settings(
            max_examples=examples,
            stateful_step_count=steps,
            derandomize=derandomize,
            database=None,
            deadline=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        run_machine(machine, settings=options)

    return live


@pytest.fixture
def begun(machine):
    """A machine that has begun with an order and examined the invariants."""
    begun = machine()
    begun.begin_anew(product=0, card="pm_card_visa", notified=False)
    begun.promises_hold()
    return begun


def test_every_table_is_examined(begun):
    begun.promises_hold()
    IdempotencyRecord.objects.all().delete()
    with pytest.raises(AssertionError, match="orders-remember-their-key"):
        begun.promises_hold()


def test_a_slow_machine_is_not_mistaken_for_a_late_beat(begun):
    PeriodicRun.objects.update(last_ended_at=F("last_ended_at") - dt.timedelta(hours=2))
    assert examination.run().failed == ["periodic-tasks-are-done"]

    begun.promises_hold()


@pytest.mark.timeout(600)  # a few seconds of work, on machines that many share
@pytest.mark.parametrize("machine", but_first([1, 4]), indirect=True, ids="threads={}".format)
@pytest.mark.parametrize("examples", but_first([2, 8]))
def test_any_sequence_of_events_keeps_every_promise(live, examples):
    live(examples=examples, steps=15, derandomize=True)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("machine", [1, 4], indirect=True, ids="threads={}".format)
@pytest.mark.parametrize("part", PARTS)
def test_many_random_sequences_of_events_keep_every_promise(live, part):
    live(examples=25, steps=40, derandomize=False)
