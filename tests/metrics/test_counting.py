"""What signals count, and that no label takes values without a bound."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderflow import providers
from orderflow.observability import counting, metric_names, metrics
from orderflow.observability.metric_names import OTHER
from outbox import registry
from tests.docs.test_signals import documented
from tests.metrics import scraping

CHARGE, SEND_SMS = "orders.tasks.charge", "notifications.tasks.send_sms"


@pytest.fixture
def counted():
    """Count signals; returns the samples that differ from 0."""
    own = metrics.Metrics()

    def counted(*signals):
        for signal, fields in signals:
            own.add(counting.counts(signal, fields))
        text = metrics.prometheus_client.generate_latest(own.registry).decode()
        return {
            key: value
            for key, value in scraping.parsed(text).items()
            if value and key[0].startswith("orderflow_") and not key[0].endswith("_bucket")
        }

    return counted


def test_a_step_counts_with_its_outcome_and_duration(counted):
    found = counted(
        ("step.finished", {"consumer": CHARGE, "message_id": "1", "seconds": 0.2, "retries": 0}),
        ("step.skipped", {"consumer": CHARGE, "message_id": "1", "seconds": 0.1, "retries": 0}),
        (
            "step.failed",
            {"consumer": CHARGE, "message_id": "1", "kind": "transient", "error_class": "Transient"},
        ),
        ("step.waits", {"consumer": CHARGE, "reason": "down", "outage": True}),
        ("step.waits", {"consumer": CHARGE, "reason": "crowded", "outage": False}),
        ("step.database_down", {"consumer": CHARGE, "error": "gone"}),
        ("step.begun", {"consumer": CHARGE, "message_id": "1", "queue_seconds": 2.0}),
    )

    assert {key: value for key, value in found.items() if "attempts" in key[0]} == {
        ("orderflow_task_attempts_total", CHARGE, "succeeded"): 1,
        ("orderflow_task_attempts_total", CHARGE, "skipped"): 1,
        ("orderflow_task_attempts_total", CHARGE, "transient"): 1,
        ("orderflow_task_attempts_total", CHARGE, "outage"): 2,
    }
    assert found["orderflow_task_duration_seconds_count", CHARGE] == 2
    assert found["orderflow_task_duration_seconds_sum", CHARGE] == pytest.approx(0.3)
    assert found["orderflow_queue_wait_seconds_sum", CHARGE] == 2


def test_a_provider_and_a_channel_count(counted):
    found = counted(
        ("provider.called", {"provider": "sms", "outcome": "outage", "seconds": 1.5}),
        ("notification.sent", {"channel": "sms", "message_id": "1"}),
        ("step.failed", {"consumer": SEND_SMS, "message_id": "1", "kind": "permanent", "error_class": "x"}),
        ("message.buried", {"consumer": SEND_SMS}),
    )

    assert found["orderflow_provider_calls_total", "sms", "outage"] == 1
    assert found["orderflow_provider_call_duration_seconds_sum", "sms"] == 1.5
    assert found["orderflow_notification_attempts_total", "sms", "sent"] == 1
    assert found["orderflow_notification_attempts_total", "sms", "permanent"] == 1
    assert found["orderflow_messages_buried_total", SEND_SMS] == 1


def test_the_relay_and_the_end_of_a_workflow_count(counted):
    found = counted(
        ("relay.published", {"messages": 7}),
        ("relay.batch_settled", {"messages": 7, "seconds": 0.02}),
        ("message.postponed", {}),
        ("message.parked", {}),
        ("message.buried", {"consumer": "outbox.relay"}),
        ("delivery.finished", {"workflow": "orders.workflows.fulfillment", "message_id": "1", "seconds": 0.5}),
    )

    assert found["orderflow_relay_messages_total",] == 7
    assert found["orderflow_relay_batch_seconds_sum",] == 0.02
    assert found["orderflow_messages_postponed_total",] == found["orderflow_messages_parked_total",] == 1
    assert found["orderflow_messages_buried_total", "outbox.relay"] == 1
    assert found["orderflow_message_critical_seconds_sum", "orders.order_placed"] == 0.5


def test_the_other_outcomes_begin_at_0_with_the_first_one():
    own = metrics.Metrics()
    own.add(counting.counts("provider.called", {"provider": "email", "outcome": "succeeded", "seconds": 1.0}))

    samples = scraping.parsed(metrics.prometheus_client.generate_latest(own.registry).decode())
    calls = {key[2]: value for key, value in samples.items() if key[0] == "orderflow_provider_calls_total"}
    assert calls == {outcome: float(outcome == "succeeded") for outcome in metric_names.CALLS}


def test_every_signal_that_counts_is_emitted_with_these_fields():
    table = documented()

    for signal, rule in counting.RULES.items():
        fields = dict.fromkeys(table[signal], "x") | {"seconds": 1.0, "queue_seconds": 1.0, "messages": 1}
        assert rule(fields), signal


STRANGE = st.one_of(st.text(max_size=30), st.sampled_from(["orders.tasks.charge", "sms", "outage", "other"]))


@given(signal=st.sampled_from(sorted(counting.RULES)), data=st.data())
def test_no_label_has_values_without_a_bound(signal, data):
    from celery import current_app

    fields = {name: data.draw(STRANGE, label=name) for name in documented()[signal]}
    tasks = {*current_app.tasks, "outbox.relay", "outbox.worker", OTHER}
    bounds = {
        "task": tasks,
        "consumer": tasks,
        "event": {*registry.known_events(), OTHER},
        "provider": {*providers.NAMES, OTHER},
        "channel": {*providers.CHANNELS, OTHER},
    }

    for count in counting.counts(signal, fields):
        metric = metric_names.BY_NAME[count.metric]
        assert len(metric.labels) == len(count.labels)
        for label, value in zip(metric.labels, count.labels, strict=True):
            assert value in bounds.get(label, {*metric.outcomes, OTHER}), (metric.name, label)


def test_every_label_is_one_whose_values_are_checked_here():
    assert {label for metric in metric_names.COUNTED for label in metric.labels} == {
        "task", "consumer", "event", "provider", "channel", "outcome",
    }  # fmt: skip


def test_names_are_prometheus_own_style():
    for metric in metric_names.ALL:
        assert metric.name.startswith("orderflow_")
        assert metric.name.endswith("_total") == (metric.kind is metric_names.Kind.COUNTER), metric.name
        assert metric.help.endswith("."), metric.name
        assert (metric.kind is metric_names.Kind.HISTOGRAM) == bool(metric.bounds)
        if metric.kind is metric_names.Kind.HISTOGRAM:
            assert metric.name.endswith("_seconds")
