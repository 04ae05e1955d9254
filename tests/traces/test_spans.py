"""Spans in one process: what is exported of them, and that nothing is left of them when traces are off."""

from __future__ import annotations

import logging
import sys
import tracemalloc
from typing import Any

import pytest
from celery import shared_task
from django.db import transaction

from orderflow.observability import errors, lines, trace_processes
from orderflow.stack import ports
from outbox import context, publisher, telemetry
from outbox.consumer import ConsumerTask
from outbox.contracts import trace_of
from outbox.dead_letters import resolving
from outbox.models import DeadLetter, OutboxMessage
from outbox.resilience import Permanent
from outbox.telemetry import CLIENT, CONSUMER, NOTHING
from tests.factories import place
from tests.outbox.events import Happened
from tests.processes import eventually
from tests.traces import receiver, tree

CLIENTS = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}


@pytest.fixture
def tracing(settings, monkeypatch):
    """Trace in this process; return a function that ends that and returns what has arrived."""
    with receiver.over_http() as received:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{received.port}")
        settings.OTEL_EXPORTER_OTLP_ENDPOINT = f"http://127.0.0.1:{received.port}"
        trace_processes.begin("test")

        def arrived():
            end()
            return sorted(received.spans, key=lambda span: span.began)

        yield arrived
        end()


def end():
    from orderflow.observability import traces

    trace_processes._end()
    if traces.add_event in telemetry._receivers:
        telemetry.unregister(traces.add_event)


def test_without_a_tracer_a_span_is_nothing_and_costs_no_object():
    telemetry.trace_with(None)

    def many():
        for _ in range(1000):
            with telemetry.span("call", "payments", CLIENT) as span:
                if span:
                    span.set({"a": 1})

    many()
    tracemalloc.start()
    before = tracemalloc.take_snapshot()
    many()
    after = tracemalloc.take_snapshot()
    tracemalloc.stop()
    grown = [each for each in after.compare_to(before, "filename") if "telemetry" in str(each.traceback)]
    assert telemetry.span("call", "payments", CLIENT) is NOTHING
    assert sum(each.count_diff for each in grown) == 0
    assert telemetry.ids() is None


@pytest.mark.django_db(transaction=True)
def test_without_a_tracer_messages_carry_what_they_did(world, drain):
    with context.bind(context.Context(correlation_id="c", trace=CLIENTS)):
        place()
    drain()

    assert list(OutboxMessage.objects.values_list("trace", flat=True)) == [CLIENTS, CLIENTS]
    assert "opentelemetry.sdk" not in sys.modules or trace_processes._Process.sdk is None


def test_the_span_around_it_is_the_parent_and_the_first_one_carries_on(tracing):
    with telemetry.span("process", "tasks.charge", CONSUMER, parent=CLIENTS, links=[CLIENTS]) as process:
        with telemetry.span("call", "payments", CLIENT):
            inner = telemetry.ids()
        with telemetry.span("create", "orders.charged", telemetry.PRODUCER) as create:
            carried = create.headers()
        assert telemetry.ids() == process_ids(process)
    spans = {span.name: span for span in tracing()}

    parent = CLIENTS["traceparent"].split("-")
    assert {span.trace for span in spans.values()} == {parent[1]}
    assert spans["process tasks.charge"].parent == parent[2]
    assert spans["process tasks.charge"].links == [(parent[1], parent[2])]
    assert spans["call payments"].parent == spans["process tasks.charge"].id
    assert spans["call payments"].id == inner.span_id
    # What the message causes is a child of the trace's first span, not of one that a kill may lose.
    assert carried["traceparent"] == CLIENTS["traceparent"]
    assert carried["tracestate"] == f"outbox={spans['create orders.charged'].id}"


def process_ids(span):
    found = span._span.get_span_context()
    return telemetry.Ids(f"{found.trace_id:032x}", f"{found.span_id:016x}")


def test_nothing_is_exported_before_the_first_span_of_the_process_ends(tracing):
    with telemetry.span("process", "tasks.charge", CONSUMER, parent=CLIENTS):
        with telemetry.span("call", "payments", CLIENT):
            pass
        assert trace_processes._Process.sdk.provider.force_flush()
        family = trace_processes._Process.sdk
        assert family is not None
        before = list(tracing())

    assert before == []


def test_exceptions_and_signals_pass_the_redaction(tracing):
    with pytest.raises(Permanent), telemetry.span("call", "payments", CLIENT):
        telemetry.emit("message.buried", consumer="a", error="ada@example.com says +447700900123")
        raise Permanent("card 4242 4242 4242 4242 of ada@example.com")
    [span] = tracing()

    told = str(span)
    assert span.error.startswith("Permanent: ")
    assert span.attributes["error.type"] == "Permanent"
    assert span.event("message.buried")["consumer"] == "a"
    assert not [secret for secret in ("ada@", "4242", "7700900123") if secret in told]


def test_log_lines_and_error_reports_name_the_span(tracing):
    write: Any = lines.Lines(lambda event: event)
    record = logging.LogRecord("x", logging.INFO, "x.py", 1, "text", (), None)

    with telemetry.span("process", "tasks.charge", CONSUMER, parent=CLIENTS):
        ids = telemetry.ids()
        line = write.format(record)
        report = errors._redact_event({"contexts": {"trace": {"trace_id": "theirs", "op": "x"}}}, {})

    assert (line["trace_id"], line["span_id"]) == ids
    assert report["contexts"]["trace"] == {"op": "x", **ids._asdict()}
    assert report["tags"] == ids._asdict()
    assert "trace_id" not in write.format(record)


def test_a_part_of_all_traces_is_recorded_and_all_of_a_trace_or_nothing(tracing, monkeypatch):
    end()
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    trace_processes.begin("test")
    for _ in range(200):
        with telemetry.span("create", "x", is_root=True) as root:
            headers = root.headers()
        with telemetry.span("process", "x", CONSUMER, parent=headers) as child:
            assert bool(child) == bool(root)
            assert child.headers()["traceparent"] == headers["traceparent"]
    spans = tracing()

    of_each = {trace: len([s for s in spans if s.trace == trace]) for trace in {s.trace for s in spans}}
    assert set(of_each.values()) == {2}
    assert 60 < len(of_each) < 140


broken: list[str] = []


@shared_task(base=ConsumerTask)
def work(*, message_id, **_):
    if message_id in broken:
        broken.remove(message_id)
        raise Permanent("it cannot work")


@pytest.mark.django_db(transaction=True)
def test_a_replay_begins_a_trace_that_is_linked_and_not_nested(tracing, drain, subscribed):
    subscribed(lambda message: work.si(message_id=str(message.id)))
    with transaction.atomic():
        message_id = publisher.publish(Happened())
    broken.append(str(message_id))
    drain()
    resolving.replay(DeadLetter.objects.all(), by="me", reason="mended")
    drain()
    spans = tracing()

    message = OutboxMessage.objects.get(pk=message_id)
    before = message.trace["traceparent"].split("-")[1]
    again = trace_of(message.trace, DeadLetter.objects.get().workflow)["traceparent"].split("-")[1]
    first, second = ([span for span in spans if span.trace == each] for each in (before, again))
    assert before != again
    [root] = tree.roots(second)
    assert root.attributes["outbox.is_replay"]
    assert {trace for trace, _ in root.links} == {before}
    for each in (first, second):
        tree.assert_is_whole(each)
        tree.assert_follows_the_conventions(each)
    [failed, settled] = [span for span in first if span.name.endswith(work.name)]
    assert (failed.attributes["outbox.outcome"], failed.error) == ("failed", "Permanent: it cannot work")
    assert settled.event("message.buried")["error_class"] == "Permanent"
    assert [s.attributes["outbox.outcome"] for s in second if s.name == f"process {work.name}"] == ["succeeded"]


@pytest.mark.slow
def test_a_receiver_that_is_down_costs_one_warning_and_no_time(tracing, settings, monkeypatch, caplog):
    end()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{ports.choose()}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "64")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "32")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    trace_processes.begin("test")

    def warnings():
        return [each for each in caplog.records if each.levelno >= logging.WARNING]

    with caplog.at_level(logging.INFO):
        for _ in range(500):
            with telemetry.span("call", "payments", CLIENT):
                pass
        eventually(warnings, "a warning", within=20)
        for _ in range(500):
            with telemetry.span("call", "payments", CLIENT):
                pass
        end()
    [warning] = warnings()

    assert warning.name == "orderflow.observability.trace_export"
    assert "cannot be exported" in warning.getMessage()


def test_our_encoder_writes_what_opentelemetrys_does(tracing, monkeypatch):
    from orderflow.observability import trace_encoding, trace_export

    seen: list[Any] = []
    monkeypatch.setattr(trace_export, "_clean", lambda span: seen.append(span) or span)
    texts = {"short": "é" * 5, "long": "x" * 20_000, "empty": "", "id": "0af76519-16cd-43dd-8448-eb211c80319c"}
    numbers = {"zero": 0, "one": 1, "true": True, "false": False, "large": 2**40, "real": -1.5}
    with telemetry.span("send", "outbox", CLIENT, links=[CLIENTS], is_root=True) as root:
        root.set(texts | numbers)
        with pytest.raises(Permanent), telemetry.span("call", "payments", CLIENT) as call:
            call.event("message.sent", {"wait": 0.25}, at=1_700_000_000.5)
            raise Permanent("no")
    with telemetry.span("process", "x", CONSUMER, parent=CLIENTS, began=1_700_000_000.0) as last:
        last._span.set_attribute("several", [1, 2])
    plain, unusual = seen[:2], seen[2:]

    assert len(seen) == 3
    for spans in (plain, unusual, seen, []):
        encoded = [trace_encoding.Encoded(span) for span in spans]
        assert trace_encoding.encode_spans(encoded) == trace_encoding.encode_all(spans)
    assert [bool(trace_encoding.Encoded(span).span) for span in seen] == [False, False, True]
