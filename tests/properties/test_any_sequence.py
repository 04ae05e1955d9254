"""Whatever happens to orders, in whatever sequence: the promises hold, and in the end all is done once."""

from __future__ import annotations

import datetime as dt

import hypothesis
import pytest
from celery import current_app
from django.core.management import call_command
from hypothesis import strategies
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from notifications import sweep as lost_news
from orders import services
from orders import sweep as late_orders
from orders.models import Order
from outbox import dead_letters, relay, testing, verification
from outbox.models import DeadLetter, OutboxMessage
from tests.conftest import close_breakers
from tests.crash.conftest import die_at, forget_everything, is_quiet, recover, restore_unacknowledged
from tests.crash.stories import EVERY_WAY
from tests.crash.test_every_crash_point import DIES_IN
from tests.factories import ProductFactory, place

SPANS = [dt.timedelta(seconds=seconds) for seconds in (1, 15, 60, 600)]
CARDS = ["pm_card_visa", "pm_card_visa", "pm_card_visa_chargeDeclined", "pm_no_such_card"]
FAULTS = [
    {"fault": "error", "status": 503},
    {"fault": "error", "status": 500},
    {"fault": "refuse"},
    {"fault": "drop_before"},
    {"fault": "drop_after"},
    {"fault": "malformed"},
]
FAULTY = ["payments", "warehouse", "sms"]
"""Providers that honour keys or can be asked. The others may deliver twice after a lost answer."""


class Lives(RuleBasedStateMachine):
    """Orders, customers, operators, workers, providers and the clock, each doing what they may do."""

    world = settings = None

    @initialize()
    def begin_anew(self):
        call_command("flush", interactive=False, verbosity=0)
        self.world.clear()
        forget_everything()
        close_breakers()
        self.products = [ProductFactory(stock=5), ProductFactory(sku="NOSHIP-any")]

    @rule(product=strategies.integers(0, 1), card=strategies.sampled_from(CARDS), news=strategies.booleans())
    def place(self, product, card, news):
        contact = EVERY_WAY if news else services.Contact()
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
        self.settings.CHAIN_INLINE_SECONDS = 60 if inline else 0
        deliver(how_many, redelivered=redelivered)

    @precondition(lambda self: OutboxMessage.objects.exists())
    @rule(which=strategies.integers(0, 20))
    def send_a_copy(self, which):
        messages = list(OutboxMessage.objects.order_by("pk"))
        relay.start(messages[which % len(messages)])

    @rule(point=strategies.sampled_from(sorted(point for point, story in DIES_IN.items() if story)))
    def die(self, point):
        die_at(point, lambda: (relay.drain(), deliver(3, redelivered=False)))

    @rule()
    def restore(self):
        restore_unacknowledged()

    @rule()
    def lose(self):
        forget_everything()

    @rule(span=strategies.sampled_from(SPANS))
    def pass_time(self, span):
        testing.pass_time(span)
        close_breakers()
        late_orders.resume_overdue()
        lost_news.resume_lost()
        relay.drain()

    @rule(server=strategies.sampled_from(FAULTY), fault=strategies.sampled_from(FAULTS))
    def fail(self, server, fault):
        getattr(self.world, server).control(**fault, times=1)

    @rule()
    def replay(self):
        mend_and_replay()

    @rule()
    def discard(self):
        dead_letters.discard(DeadLetter.objects.all(), by="on call", reason="a property test")

    @invariant()
    def promises_hold(self):
        report = verification.run()
        assert report.passed, told(report)

    def teardown(self):
        for name in FAULTY:
            getattr(self.world, name).clear_faults()
        for _ in range(4):
            recover()
            mend_and_replay()
        assert is_quiet(), list(Order.objects.unfinished().values_list("number", "status", "due_at"))
        assert not DeadLetter.objects.unresolved().exists()
        report = verification.run(providers=True)
        assert report.passed, told(report)


def deliver(how_many, *, redelivered):
    """Run the next messages that the broker has."""
    with current_app.connection_for_read() as link:
        queues = [queue(link.default_channel) for queue in current_app.amqp.queues.values()]
        for _ in range(how_many):
            if message := testing._next_message(queues):
                testing.run(message, redelivered=redelivered)


def mend_and_replay():
    Order.objects.filter(payment_method="pm_no_such_card").update(payment_method="pm_card_visa")
    dead_letters.replay(DeadLetter.objects.all(), by="on call", reason="a property test")


def told(report):
    return [finding.as_json() for finding in report.findings if finding.verdict not in verification.PASSING]


@pytest.fixture
def live(drain, world, settings):
    """Run sequences of events, as many as asked for."""

    def live(*, examples, steps, derandomize):
        class Machine(Lives):
            pass

        Machine.world, Machine.settings = world, settings
        options = hypothesis.settings(
            max_examples=examples,
            stateful_step_count=steps,
            derandomize=derandomize,
            database=None,
            deadline=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        run_machine(Machine, settings=options)

    return live


def test_any_sequence_of_events_keeps_every_promise(live):
    live(examples=8, steps=15, derandomize=True)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_random_sequences_of_events_keep_every_promise(live):
    live(examples=200, steps=40, derandomize=False)
