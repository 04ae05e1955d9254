"""What Prometheus reads: every known value, nothing that is not known, and an answer whatever is down."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from django.conf import settings as project_settings
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

from orderflow.metrics import broker, components, page, rows, shared
from orderflow.metrics.components import Component, Components
from orderflow.metrics.descriptions import BY_NAME, METRICS, Value
from orderflow.observability import exporter
from orders.clients import tokens
from outbox import periodic
from outbox.models import DeadLetter
from tests.factories import ProductFactory, place
from tests.orders.api.client import ApiClient, assert_problem
from tests.processes import ROOT, environment, eventually
from tests.statistics.conftest import own_transactions, roll_up  # noqa: F401 - fixtures
from tests.statistics.test_counting import bury, fail, publish

pytestmark = pytest.mark.django_db(transaction=True)

NEEDS_A_RUN = {
    "orderflow_periodic_task_age_seconds",
    "orderflow_verification_violated",
    "orderflow_verification_age_seconds",
}
"""Absent until something has run for the first time."""


def scrape():
    """Return all samples, by name and labels, as a parser of Prometheus' format reads them."""
    body = exporter.text(components.all_components().read()).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }


def value(samples, name, **labels):
    return samples[name, tuple(sorted(labels.items()))]


def test_every_metric_is_exported_and_described():
    samples = scrape()
    exported = {
        name.removesuffix(suffix)
        for name, _ in samples
        for suffix in ("_bucket", "_sum", "_count", "")
        if name.removesuffix(suffix) in BY_NAME
    }
    without_rows = {"orderflow_dead_letters_open", "orderflow_attempts_total", "orderflow_dead_letters_total"}
    without_workers = {"orderflow_worker_seen_age_seconds", "orderflow_workers"}
    expected = set(BY_NAME) - NEEDS_A_RUN - without_rows - without_workers
    if not project_settings.REDIS_URL:
        expected -= {name for name in BY_NAME if BY_NAME[name].source == "Redis"}
    assert expected - exported == set()
    assert value(samples, "orderflow_up", component="database") == 1
    assert value(samples, "orderflow_up", component="broker") == 1


def test_values_equal_the_rows():
    product = ProductFactory()
    for _ in range(3):
        place(product)
    fail(outcome="postponed")
    fail(outcome="lost")
    fail(outcome="buried", consumer="notifications.tasks.send_email")
    bury(1)
    DeadLetter.objects.filter(pk=bury(2).pk).update(resolution="discarded")
    for _ in range(4):
        publish()
    periodic.begin("outbox.tasks.drain", every=rows.periodic.SLACK)
    periodic.end("outbox.tasks.drain")

    samples = scrape()
    assert value(samples, "orderflow_orders_placed_total") == 3
    assert value(samples, "orderflow_orders_unfinished", status="placed") == 3
    assert value(samples, "orderflow_orders_total", outcome="fulfilled") == 0
    assert value(samples, "orderflow_order_duration_seconds_count", outcome="fulfilled") == 0
    assert value(samples, "orderflow_orders_due_total") == 0
    assert value(samples, "orderflow_outbox_published_total") == 4
    assert value(samples, "orderflow_outbox_messages", status="pending") == 3 + 3
    assert value(samples, "orderflow_message_copies_total", kind="redelivery") == 1
    assert value(samples, "orderflow_message_copies_total", kind="lost") == 1
    assert value(samples, "orderflow_notifications_total", channel="email", outcome="failed") == 1
    assert value(samples, "orderflow_dead_letters_open", consumer="tests.consumer", fingerprint="f") == 1
    assert value(samples, "orderflow_dead_letters_total", consumer="tests.consumer") == 2
    assert value(samples, "orderflow_dead_letters_total", consumer="orders.tasks.charge") == 0
    assert value(samples, "orderflow_attempts_total", consumer="orders.tasks.charge", outcome="lost") == 0
    assert value(samples, "orderflow_dead_letters_resolved_total", resolution="discarded") == 1
    assert value(samples, "orderflow_periodic_task_age_seconds", task="outbox.tasks.drain") < 60
    assert value(samples, "orderflow_database_sessions") >= 1
    assert value(samples, "orderflow_database_size_bytes") > 1e6


def test_there_is_a_bound_on_groups_of_dead_letters():
    for number in range(rows.LARGEST_GROUPS + 5):
        row = bury(number)
        DeadLetter.objects.filter(pk=row.pk).update(fingerprint=f"group-{number}")
    groups = [
        (labels, number) for (name, labels), number in scrape().items() if name == "orderflow_dead_letters_open"
    ]
    assert len(groups) == rows.LARGEST_GROUPS + 1
    assert dict(groups)[("consumer", "other"), ("fingerprint", "other")] == 5


def test_a_scrape_costs_few_queries(
    roll_up,  # noqa: F811
    django_assert_max_num_queries,
):
    bury(1)
    fail()
    roll_up()
    with django_assert_max_num_queries(18) as queries:
        rows.read()
    reads = [
        query for query in queries if not query["sql"].startswith(("SAVEPOINT", "RELEASE", "SET", "BEGIN"))
    ]
    assert len(reads) <= 12, [query["sql"][:60] for query in reads]


def test_a_query_that_takes_too_long_is_absent_and_the_database_is_not_called_down(monkeypatch):
    monkeypatch.setattr(rows, "STATEMENT_TIMEOUT", "50ms")

    def slow():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(5)")
        return {"orderflow_orders_stuck": [Value(1)]}

    monkeypatch.setattr(rows, "PARTS", [rows._verification, rows._database, slow, rows._orders])
    readings = Components(Component("database", rows.read)).read()

    assert components.is_up(readings, "database")
    assert "orderflow_database_size_bytes" in readings
    assert not {"orderflow_orders_stuck", "orderflow_orders_unfinished"} & readings.keys()


def test_a_database_that_is_slow_with_everything_is_down(monkeypatch):
    monkeypatch.setattr(rows, "STATEMENT_TIMEOUT", "1ms")
    monkeypatch.setattr(rows, "PARTS", [lambda: rows._all("SELECT pg_sleep(1)")])

    assert not components.is_up(Components(Component("database", rows.read)).read(), "database")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def hanging_port():
    """A server that accepts connections and says nothing."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(50)
        yield server.getsockname()[1]


def test_what_is_down_is_absent_and_the_rest_is_exported(settings):
    """Absent, not zero: nobody knows."""
    settings.REDIS_URL = f"redis://127.0.0.1:{free_port()}/0"
    samples = scrape()
    assert value(samples, "orderflow_up", component="redis") == 0
    assert value(samples, "orderflow_up", component="database") == 1
    names = {name for name, _ in samples}
    assert "orderflow_breaker_open" not in names
    assert "orderflow_credentials_refused" not in names
    assert "orderflow_orders_placed_total" in names


@pytest.mark.slow
def test_a_server_that_hangs_does_not_hold_up_a_scrape(hanging_port):
    def ask():
        with socket.create_connection(("127.0.0.1", hanging_port)) as connection:
            connection.recv(1)
        return {"orderflow_orders_stuck": [Value(0)]}

    read = Components(Component("database", ask), Component("broker", broker.read), answer_within=0.5)
    began = time.monotonic()
    readings = read.read()
    assert time.monotonic() - began < 2
    assert not components.is_up(readings, "database")
    assert components.is_up(readings, "broker")
    assert "orderflow_orders_stuck" not in readings


def test_a_component_that_hangs_is_asked_again_when_it_has_answered():
    import threading

    may_answer, asked = threading.Event(), []

    def ask():
        asked.append(1)
        may_answer.wait(30)
        return {"orderflow_orders_stuck": [Value(0)]}

    component = Component("database", ask)
    for _ in range(3):
        component.begin()
        assert component.end(until=time.monotonic() + 0.02) is None
    assert len(asked) == 1
    may_answer.set()
    eventually(lambda: not component._thread.is_alive(), "the answer")
    component.begin()
    assert component.end(until=time.monotonic() + 30) == {"orderflow_orders_stuck": [Value(0)]}
    assert len(asked) == 2


def test_readings_are_cached_for_a_moment():
    asked = []
    read = Components(Component("broker", lambda: asked.append(1) or {}))
    assert read.read() is read.read()
    assert len(asked) == 1


def test_an_unknown_breaker_is_absent(settings, monkeypatch):
    if not settings.REDIS_URL:
        pytest.skip("needs REDIS_URL")
    from outbox import resilience

    monkeypatch.setattr(
        resilience,
        "breaker",
        lambda name: type("B", (), {"circuit": lambda _: resilience.Circuit(state="unknown")})(),
    )
    assert shared.read()["orderflow_breaker_open"] == []


@pytest.fixture
def _fresh(monkeypatch):
    monkeypatch.setattr(page, "_of_process", {})


@pytest.mark.usefixtures("_fresh")
def test_the_page_is_for_prometheus_and_for_staff(client):
    assert_problem(Client().get("/metrics"), 401, "unauthenticated")
    refused = ApiClient().get("/metrics")
    assert_problem(refused, 403, "missing-scope")
    assert tokens.METRICS in refused["WWW-Authenticate"]

    response = ApiClient(tokens.METRICS).get("/metrics")
    assert response.status_code == 200
    assert response["Content-Type"].startswith("text/plain; version=")
    assert b"orderflow_orders_placed_total" in response.content
    client.force_login(User.objects.create_user("operator", is_staff=True))
    assert client.get("/metrics").status_code == 200


@pytest.mark.usefixtures("_fresh")
def test_a_token_for_metrics_reads_no_orders():
    assert ApiClient(tokens.METRICS).get("/api/v1/orders").status_code == 403


def test_while_the_database_is_down_the_page_says_only_what_is_up(monkeypatch):
    def down():
        raise ConnectionError("no database")

    read = Components(Component("database", down), Component("broker", broker.read))
    monkeypatch.setattr(page, "_components", lambda: read)
    body = Client().get("/metrics").content.decode()
    samples = [sample for family in text_string_to_metric_families(body) for sample in family.samples]
    assert {sample.name for sample in samples} == {"orderflow_up"}
    assert {sample.labels["component"]: sample.value for sample in samples} == {"database": 0, "broker": 1}


@pytest.mark.slow
def test_the_command_prints_what_promtool_accepts():
    done = subprocess.run(
        [sys.executable, "manage.py", "metrics", "--once"],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "orderflow_up" in done.stdout
    if (promtool := shutil.which("promtool")) is None:
        pytest.skip("promtool is not installed")
    checked = subprocess.run(
        [promtool, "check", "metrics"],
        input=done.stdout,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


@pytest.mark.slow
def test_the_command_serves_also_while_everything_is_down():
    port, nowhere = free_port(), free_port()
    process = subprocess.Popen(
        [sys.executable, "manage.py", "metrics", "--port", str(port)],
        cwd=ROOT,
        env=environment()
        | {
            "DATABASE_URL": f"postgresql://nobody@127.0.0.1:{nowhere}/nothing",
            "BROKER_URL": f"redis://127.0.0.1:{nowhere}/0",
            "REDIS_URL": f"redis://127.0.0.1:{nowhere}/1",
        },
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert b"Serving metrics" in process.stdout.readline()
        began = time.monotonic()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as response:
            body = response.read().decode()
        assert time.monotonic() - began < components.ANSWER_WITHIN + 5
        samples = {
            (sample.name, sample.labels.get("component")): sample.value
            for family in text_string_to_metric_families(body)
            for sample in family.samples
        }
        for component in ("database", "broker", "redis"):
            assert samples["orderflow_up", component] == 0
        assert not any(name.startswith("orderflow_orders") for name, _ in samples)
        assert any(name.startswith("process_") for name, _ in samples)
    finally:
        process.terminate()
        assert process.wait(30) == 0


def test_labels_are_bounded():
    """Each label has a list of values, or a sentence that says what bounds it."""
    for metric in METRICS:
        for name, values in metric.labels.items():
            assert values, (metric.name, name)
            assert name not in {"order", "order_id", "message_id", "user", "email", "error", "key"}
    known = {(metric.name, label): values for metric in METRICS for label, values in metric.labels.items()}
    for (name, labels), _ in scrape().items():
        for label, found in labels:
            base = next((known[n, label] for n in (name, name.rsplit("_", 1)[0]) if (n, label) in known), None)
            if label != "le" and not isinstance(base, str):
                assert base is not None, (name, label)
                assert found in base, (name, label, found)
