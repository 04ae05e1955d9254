"""Logs identify the work without personal data; errors reach Sentry without personal data."""

from __future__ import annotations

import datetime as dt
import io
import json
import logging

import pytest
import sentry_sdk
import structlog
from celery import current_app
from sentry_sdk.transport import Transport

from orderflow.observability import errors, logs, redaction
from outbox import context, telemetry


class Recording(Transport):
    def __init__(self) -> None:
        super().__init__()
        self.envelopes = []

    def capture_envelope(self, envelope) -> None:
        self.envelopes.append(envelope)

    @property
    def errors(self):
        events = (envelope.get_event() for envelope in self.envelopes)
        return [event for event in events if event and "exception" in event]


@pytest.fixture
def sentry(settings):
    transport = Recording()
    errors.connect_sentry("https://key@sentry.example/1", transport=transport)
    yield transport
    sentry_sdk.get_client().close()
    sentry_sdk.init(dsn="", default_integrations=False, auto_enabling_integrations=False)


@pytest.fixture
def log_lines(settings):
    settings.LOG_FORMAT = "json"
    root = logging.getLogger()
    before = list(root.handlers), root.level
    logs.configure_logging()
    stream = io.StringIO()
    root.handlers[0].setStream(stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers[:], root.level = before[0], before[1]


@pytest.mark.parametrize(
    "secret",
    [
        "ada@example.com",
        "4242 4242 4242 4242",
        "4242424242424242",
        "+447700900123",
        "sk_test_51abcdef",
        "of_live_0123456789",
        "Bearer abc.def",
    ],
)
def test_personal_data_and_secrets_never_reach_the_log(secret):
    line = redaction.redacted({"error": f"failed for {secret}!", "deep": [{"value": secret}]})

    assert secret not in json.dumps(line)


def test_ids_stay_readable_in_the_log():
    ids = {"order_id": "01a20cdc-d473-79a3-94f1-fbec2769533a", "number": "OF-1000", "seconds": 0.25}

    assert redaction.redacted(ids) == ids


def test_a_signal_becomes_a_line_that_names_the_request_and_the_message(log_lines):
    with context.bind(context.Context(correlation_id="request-1", causation_id="message-1", task="orders.x")):
        logs.log_signal("message.buried", {"consumer": "orders.x", "error": "for ada@example.com"})

    line = next(line for line in log_lines() if line["event"] == "message.buried")
    assert line["event"] == "message.buried"
    assert line["level"] == "warning"
    assert (line["correlation_id"], line["message_id"], line["task"]) == ("request-1", "message-1", "orders.x")
    assert "ada@" not in line["error"]


def test_a_wait_is_written_in_seconds(log_lines):
    logs.log_signal("message.postponed", {"wait": dt.timedelta(minutes=1, milliseconds=500)})

    assert log_lines()[-1]["wait"] == 60.5


def test_a_quiet_signal_costs_no_line(log_lines, settings):
    logs.log_signal("relay.published", {"messages": 1})

    assert not [line for line in log_lines() if line["event"] == "relay.published"]


def test_lines_of_all_kinds_of_loggers_have_the_same_fields(log_lines):
    with context.bind(context.Context(correlation_id="request-1", causation_id="message-1", task="orders.x")):
        logging.getLogger("library").warning("for %s", "ada@example.com", extra={"data": object()})
        structlog.stdlib.get_logger("structured").warning("for ada@example.com", seconds=0.5)
        logs.log_signal("message.buried", {"at": dt.date(2026, 1, 2), "many": {"a@b.example"}})

    plain, structured, signal = log_lines()[-3:]
    ids = {"correlation_id": "request-1", "message_id": "message-1", "task": "orders.x", "level": "warning"}
    assert plain == ids | {
        "event": "for [redacted]",
        "logger": "library",
        "timestamp": plain["timestamp"],
    }
    assert structured == {**plain, "logger": "structured", "seconds": 0.5, "timestamp": structured["timestamp"]}
    assert signal == ids | {
        "event": "message.buried",
        "at": "2026-01-02",
        "many": ["[redacted]"],
        "logger": "orderflow",
        "timestamp": signal["timestamp"],
    }
    assert all(line["timestamp"].endswith("Z") and len(line["timestamp"]) == 27 for line in (plain, structured))


def test_a_line_contains_the_traceback_redacted(log_lines):
    try:
        raise RuntimeError("no answer for ada@example.com")
    except RuntimeError:
        logging.getLogger("library").exception("failed")

    assert log_lines()[-1]["exception"].endswith("RuntimeError: no answer for [redacted]")


def test_a_receiver_that_fails_does_not_harm_the_work(caplog):
    def broken(signal, fields):
        raise RuntimeError("no disk")

    telemetry.register(broken)
    try:
        telemetry.emit("message.published")
    finally:
        telemetry.unregister(broken)

    assert "telemetry receiver failed" in caplog.text


def test_an_error_reaches_sentry_without_the_customers_address(sentry):
    try:
        raise RuntimeError("cannot mail ada@example.com")
    except RuntimeError as error:
        sentry_sdk.capture_exception(error)

    [event] = sentry.errors
    assert event["exception"]["values"][0]["type"] == "RuntimeError"
    assert "ada@" not in json.dumps(event, default=str)


def test_the_error_of_a_task_reaches_sentry_with_its_name(sentry):
    @current_app.task(name="tests.fails")
    def fails():
        raise ZeroDivisionError

    try:
        fails.apply(throw=False)
    finally:
        current_app.tasks.unregister("tests.fails")

    assert any(event.get("transaction") == "tests.fails" for event in sentry.errors)


def test_a_request_that_fails_reaches_sentry(sentry, client, settings):
    client.raise_request_exception = False
    settings.ROOT_URLCONF = "tests.orderflow.broken_urls"

    assert client.get("/broken").status_code == 500
    [event] = sentry.errors
    assert event["exception"]["values"][0]["type"] == "LookupError"


def test_a_failed_request_reaches_sentry_without_query_and_body(sentry, client, settings):
    client.raise_request_exception = False
    settings.ROOT_URLCONF = "tests.orderflow.broken_urls"

    client.post(
        "/broken?token=hidden-one", data={"name": "hidden-two"}, headers={"Referer": "/x?y=hidden-three"}
    )

    [event] = sentry.errors
    assert set(event["request"]) <= {"method", "url", "headers"}
    assert "hidden-" not in json.dumps(event, default=str)


def test_an_event_for_sentry_keeps_method_and_path_of_its_request():
    request = {
        "method": "GET",
        "url": "https://shop/x?y=hidden",
        "query_string": "y=hidden",
        "cookies": {"a": "b"},
    }

    kept = errors._redact_event({"request": request}, None)["request"]

    assert kept == {"method": "GET", "url": "https://shop/x?[redacted]"}
