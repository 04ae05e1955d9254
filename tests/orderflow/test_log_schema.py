"""The lines of real processes against `docs/logs.schema.json`: documented fields only, one line per outcome."""

from __future__ import annotations

import json
import re
import uuid
from collections import Counter

import jsonschema
import kombu
import pytest
from django.db import connection

from orders import services
from orders.models import Order
from outbox import registry
from outbox.database import clock
from tests import processes
from tests.chaos import tasks
from tests.docs.test_signals import documented
from tests.factories import place
from tests.processes import ROOT, RedisServer, eventually

SCHEMA = json.loads((ROOT / "docs" / "logs.schema.json").read_text())
TABLE = re.compile(r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", re.MULTILINE)
KINDS = {
    "text": "string",
    "number": "number",
    "integer": "integer",
    "boolean": "boolean",
    "list": "array",
    "null": "null",
}
OUTCOMES = ("order.moved", "step.finished", "notification.sent")


def test_the_schema_is_valid():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_table_has_every_field_of_the_schema_and_no_other():
    rows = {name: (kind, what) for name, kind, what in TABLE.findall((ROOT / "docs" / "logs.md").read_text())}

    assert rows.keys() == SCHEMA["properties"].keys()
    for name, (kind, what) in rows.items():
        known = SCHEMA["properties"][name]
        kinds = known["type"] if isinstance(known["type"], list) else [known["type"]]
        assert sorted(KINDS[each] for each in kind.split(" or ")) == sorted(kinds), name
        assert known["description"] == what, name


def test_the_schema_has_every_field_of_every_signal():
    fields = {field for names in documented().values() for field in names} - {"…"}

    assert not fields - SCHEMA["properties"].keys()


@pytest.mark.django_db
def test_the_schema_has_every_kind_of_row_that_is_pruned():
    kinds = {name.replace(" ", "_") for name in registry.expired(clock.now())}

    assert kinds
    assert not kinds - SCHEMA["properties"].keys()
    assert connection.is_usable()


def lines_of(*started):
    for process in started:
        for line in process.output().splitlines():
            yield json.loads(line)


def violations(lines):
    validator = jsonschema.Draft202012Validator(SCHEMA, format_checker=jsonschema.FormatChecker())
    return [(line, error.message) for line in lines for error in validator.iter_errors(line)]


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_processes_write_one_line_per_outcome_with_documented_fields_and_no_personal_data(
    world, tmp_path, pool
):
    broker = RedisServer(tmp_path)
    settings = {"BROKER_URL": broker.url, "LOG_FORMAT": "json", "LOG_LEVEL": "INFO"}
    with processes.stack(tmp_path) as stack:
        steps = stack.worker("orders", "orders", pool=pool, concurrency=2, **settings)
        others = [
            stack.worker("email", "email", "sms", "push", pool=pool, concurrency=2, **settings),
            stack.worker("jobs", "jobs", pool=pool, include="tests.chaos.tasks", **settings),
            stack.relay(**settings),
            stack.beat(**settings),
        ]
        order = place(contact=services.Contact(name="Ada Lovelace", email="ada.lovelace@example.com"))
        eventually(lambda: Order.objects.get(pk=order.pk).status == "fulfilled", "an order is fulfilled")
        eventually(lambda: others[0].has_logged("notification.sent", times=2), "the customer is told")
        with kombu.Connection(broker.url) as link:
            again = tasks.fail_once.apply_async(
                kwargs={"message_id": str(uuid.uuid4())}, queue="jobs", connection=link
            )
        eventually(lambda: others[1].has_logged("step.finished"), "a task succeeds in the end")
        for process in (steps, *others):
            process.stop()
        lines = list(lines_of(steps, *others))
        text = "".join(process.output() for process in (steps, *others))
    broker.kill()

    assert not violations(lines)
    [retried] = [line for line in lines if line["event"] == "task.retried"]
    assert (retried["task"], retried["task_id"]) == (tasks.fail_once.name, again.id)
    assert "the first time" in retried["error"]
    assert retried["message_id"]
    of_order = [
        line for line in lines if line.get("correlation_id") and line["message_id"] != retried["message_id"]
    ]
    assert Counter(line["event"] for line in of_order) == {
        "order.moved": 3,
        "step.finished": 5,
        "notification.sent": 2,
    }
    assert len({line["correlation_id"] for line in of_order}) == 1
    steps_done = {
        (line["consumer"], line["message_id"]) for line in of_order if line["event"] == "step.finished"
    }
    assert len(steps_done) == 5
    # Neither what arrives nor ticks of the schedule write a line.
    assert not [
        line for line in lines if " received" in line["event"] or line.get("task", "").endswith(".sweep")
    ]
    for personal in ("ada.lovelace", "Ada Lovelace"):
        assert personal not in text
