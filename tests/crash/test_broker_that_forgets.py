"""Whatever messages a broker loses, and whenever, the outcome is the same."""

from __future__ import annotations

import pytest
from celery import current_app
from django.core.management import call_command

from notifications.models import Notification
from orders.models import Order, Payment, Refund, Shipment
from outbox import registry, testing
from outbox.models import EnqueuedTask
from outbox.relay import deliveries, probes, relay
from tests.crash import stories
from tests.crash.conftest import assert_nothing_is_lost_or_done_twice, forget_everything, recover
from tests.factories import ProductFactory, place

SCENARIOS = {
    "shipped": lambda story: place(contact=stories.EVERY_WAY),
    "rejected": lambda story: place(contact=stories.EVERY_WAY, payment_method="pm_card_visa_chargeDeclined"),
    "refunded": lambda story: place(ProductFactory(sku="NOSHIP-lost"), contact=stories.EVERY_WAY),
    "cancelled": lambda story: stories.STORIES["cancelled_after_the_charge"].prepare(story),
    "stranded": lambda story: stories.STORIES["charged_after_it_was_cancelled"].prepare(story),
    "background task": lambda story: enqueue(),
}
SUBSCRIPTIONS = {(event, name) for event, names in registry._workflows.items() for name in names}


def enqueue():
    """Enqueue a task of Django's tasks framework."""
    from tests.outbox.django_tasks import work

    work.add.enqueue(1, 2)


@pytest.fixture(autouse=True)
def background_tasks(settings):
    settings.TASKS = {"default": {"BACKEND": "outbox.django_tasks.OutboxBackend"}}


@pytest.fixture(autouse=True)
def by_the_broker(settings):
    settings.OUTBOX_CHAIN_INLINE_SECONDS = 0  # every link of a chain can then be lost


@pytest.fixture
def started(monkeypatch):
    """The workflows that are started, with their events."""
    found, record = set(), deliveries.record

    def note(firsts, **options):
        found.update(first.workflow for first in firsts)
        return record(firsts, **options)

    monkeypatch.setattr(deliveries, "record", note)
    return found


@pytest.fixture
def story(begin):
    return begin("fulfilled")


def afresh(story, scenario):
    call_command("flush", interactive=False, verbosity=0, reset_sequences=False)
    story.world.clear()
    testing.purge()
    SCENARIOS[scenario](story)


def consume(most):
    """
    Relay and run up to so many tasks; return how many there were.

    Probes are run but not counted, because their number depends on the speed of the machine.
    """
    ran = 0
    while ran < most:
        relay.drain()
        with current_app.connection_for_read() as broker:
            queues = [queue(broker.default_channel) for queue in current_app.amqp.queues.values()]
            message = testing._next_message(queues)
            if message is None:
                return ran
            ran += testing.run(message) != probes.PROBE
    relay.drain()
    return ran


def outcome():
    """The final state of all rows, without ids and times."""
    return {
        "orders": sorted(Order.objects.values_list("status", "reason")),
        "payments": sorted(Payment.objects.values_list("status", "amount_minor")),
        "refunds": sorted(Refund.objects.values_list("status", "amount_minor")),
        "shipments": sorted(Shipment.objects.values_list("status", flat=True)),
        "notifications": sorted(Notification.objects.values_list("template", "channel", "status")),
        "background tasks": sorted(EnqueuedTask.objects.values_list("task", "status")),
    }


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_losing_a_message_at_any_link_changes_no_outcome(story, scenario):
    afresh(story, scenario)
    tasks = consume(10_000)
    recover()
    undisturbed = outcome()
    assert tasks

    for survivors in range(tasks):
        afresh(story, scenario)
        assert consume(survivors) == survivors
        forget_everything()
        recover()
        assert outcome() == undisturbed, f"the broker forgot everything after {survivors} tasks"
        assert_nothing_is_lost_or_done_twice(story)


@pytest.mark.slow
def test_the_scenarios_start_every_workflow_there_is(story, started):
    subscribed = {name for _, name in SUBSCRIPTIONS}
    for scenario in SCENARIOS:
        afresh(story, scenario)
        consume(10_000)

    assert subscribed <= started
