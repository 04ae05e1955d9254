"""Attempts that fail, calls of providers, and waiting times are reported as signals, after their rows."""

from __future__ import annotations

import contextlib
import time
import uuid

import pytest
from celery import shared_task
from django.db import transaction

from outbox import measuring, publisher, resilience, telemetry, testing
from outbox.consumer import ConsumerTask
from outbox.database import uuid7
from outbox.models import Attempt
from outbox.relay import relay
from outbox.resilience import NotNow, Outage, Permanent, RetryPolicy, Transient
from tests.outbox.events import Happened

pytestmark = pytest.mark.django_db

FAILS = {}


@shared_task(
    base=ConsumerTask, name="tests.reported", **RetryPolicy(attempts=2, redelivery_waits=()).task_options()
)
def reported(*, message_id, **_):
    if error := FAILS.get("with"):
        raise error


@pytest.fixture
def signals():
    found = []

    def receive(signal, fields):
        found.append((signal, fields))

    telemetry.register(receive)
    yield found
    telemetry.unregister(receive)
    FAILS.clear()


def of(signals, name):
    return [fields for signal, fields in signals if signal == name]


def publish():
    with transaction.atomic():
        publisher.publish(Happened(about="thing-1", deed="fell"))


def handler(message):
    return reported.si(message_id=str(message.id))


@pytest.fixture
def deliver(subscribed, drain):
    def deliver(error=None):
        FAILS["with"] = error
        publish()
        drain()

    subscribed(handler)
    return deliver


@pytest.mark.parametrize(
    ("error", "kinds"),
    [
        (Transient("busy"), ["transient", "transient"]),
        (Permanent("never"), ["permanent"]),
        (ValueError("a fault in the code"), ["permanent"]),
    ],
)
def test_each_attempt_that_fails_is_reported_with_its_class(deliver, signals, error, kinds):
    deliver(error)

    assert [fields["kind"] for fields in of(signals, "step.failed")] == kinds
    assert Attempt.objects.count() == len(kinds)
    assert {fields["error_class"] for fields in of(signals, "step.failed")} == {type(error).__name__}


@pytest.mark.parametrize("error", [Outage("down"), NotNow("in a moment")])
def test_waiting_is_no_failed_attempt(deliver, signals, error):
    deliver(error)

    assert of(signals, "step.failed") == []
    assert [fields["outage"] for fields in of(signals, "step.waits")] == [isinstance(error, Outage)]


def test_the_end_of_a_workflow_says_how_long_its_message_took(deliver, signals):
    deliver()

    [ended] = of(signals, "delivery.finished")
    assert ended["workflow"].endswith("test_reported_attempts.handler")
    assert 0 <= ended["seconds"] < 60


def test_times_between_two_clocks_are_never_negative():
    hour_ahead = uuid7.first_at(uuid7.moment_of(uuid7.new()) + 3600 * 1000 * uuid7.MILLISECOND)

    assert measuring.since_written(str(hour_ahead)) == 0
    assert measuring.since_written(str(uuid.UUID(int=0))) > 0


class Request(dict):
    headers = None


@pytest.mark.parametrize(
    ("header", "planned", "waited"),
    [
        (-2.0, "", 2.0),
        (-5.0, "3.5", 1.5),
        (3600.0, "", 0.0),
        (None, "", None),
        ("yesterday", "", None),
        (-2.0, "soon", None),
    ],
)
def test_the_wait_in_a_queue_is_what_no_one_had_planned(header, planned, waited):
    sent = f"{time.time() + header:.3f}" if isinstance(header, float) else header
    found = measuring.in_queue(Request(sent_at=sent), planned=planned)

    assert found == (None if waited is None else pytest.approx(waited, abs=0.5))


def test_messages_say_when_they_were_sent_only_if_somebody_counts(subscribed, drain, signals, monkeypatch):
    subscribed(handler)
    for counts in (False, True):
        monkeypatch.setattr(telemetry, "_is_timing", counts)
        publish()
        drain()
        assert len(of(signals, "step.begun")) == counts


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "succeeded"),
        (Transient("x"), "transient"),
        (NotNow("x"), "transient"),
        (Permanent("x"), "permanent"),
        (Outage("x"), "outage"),
        (ValueError("an answer"), "other"),
    ],
)
def test_a_call_is_reported_with_its_outcome_and_duration(signals, settings, error, outcome):
    del settings.OUTBOX_BREAKER_FACTORY
    with contextlib.suppress(type(error) if error else KeyError), resilience.breaker("payments").guard():
        time.sleep(0.01)
        if error:
            raise error

    [called] = of(signals, "provider.called")
    assert (called["provider"], called["outcome"]) == ("payments", outcome)
    assert 0.01 <= called["seconds"] < 5


def test_a_call_that_an_open_breaker_prevents_is_not_made(signals, settings):
    settings.OUTBOX_BREAKER_FACTORY = f"{__name__}.always_open"
    with pytest.raises(Outage), resilience.breaker("payments").guard():
        pytest.fail("it was called")

    assert of(signals, "provider.called") == []


class always_open:
    def __init__(self, name):
        self.state = self.circuit = lambda: "open"

    @contextlib.contextmanager
    def guard(self):
        raise Outage("the circuit is open")
        yield


def test_a_batch_of_the_relay_is_reported_with_its_duration(subscribed, signals):
    subscribed(handler)
    for _ in range(3):
        publish()
    relay.drain()

    [batch] = of(signals, "relay.batch_settled")
    assert batch["messages"] == 3
    assert 0 < batch["seconds"] < 60
    testing.purge()
