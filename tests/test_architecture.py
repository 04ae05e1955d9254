"""Rules of the design that no linter checks."""

from __future__ import annotations

import ast
import functools
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from django.apps import apps
from django.conf import settings

from outbox import registry
from tests.processes import ROOT

[LAYERS] = (
    contract["layers"]
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    if contract["type"] == "layers"
)
STACK = [[name.strip() for name in layer.split("|")] for layer in reversed(LAYERS)]
"""From the bottom to the top, in the order of the import rules."""

APPS = [name for layer in STACK for name in layer]
SENDERS = {"delay", "apply_async", "send_task", "delay_on_commit", "apply_async_on_commit"}
MAY_SEND = {"outbox/broker/dispatch.py"}
MAY_READ_THE_ENVIRONMENT = {
    "orderflow/celery.py": "names the settings module",
    "orderflow/chaos/clock/sitecustomize.py": "of a process of the drill, before it has settings",
    "orderflow/web/log.py": "names the settings module",
    "orderflow/management/commands/alerts.py": "hands it to the processes of its stack",
    "orderflow/settings.py": "which pool the process belongs to",
    "orderflow/wsgi.py": "names the settings module",
    "outbox/__main__.py": "whether to print in colours, as Celery's command does",
}
CORPUS = ROOT / "tests" / "contracts"


@functools.cache
def sources():
    return [
        (path.relative_to(ROOT).as_posix(), ast.parse(path.read_text()))
        for app in APPS
        for path in sorted((ROOT / app).rglob("*.py"))
    ]


def test_only_the_relay_publishes_work_to_celery():
    found = {
        name
        for name, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in SENDERS
    }
    assert found == MAY_SEND


def test_only_the_settings_read_the_environment():
    found = {
        name
        for name, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")
    }
    servers = {name for name in found if name.startswith(("orderflow/stack/", "orderflow/sandbox/"))}
    assert found - servers == set(MAY_READ_THE_ENVIRONMENT)


def test_only_the_servers_print():
    found = {
        name
        for name, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert not {name for name in found if not name.startswith(("orderflow/stack/", "orderflow/sandbox/"))}


def test_the_import_rules_are_kept():
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def modules_named_above(app, tree):
    """Return strings with the dotted path of an object in an app above: imports that no linter sees."""
    own = next(height for height, layer in enumerate(STACK) if app in layer)
    above = [name for layer in STACK[own + 1 :] for name in layer]
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            first, *rest = node.value.split(".")
            folders = [ROOT.joinpath(first, *rest[:depth]) for depth in (len(rest), len(rest) - 1) if depth > 0]
            if first in above and any(path.is_dir() or path.with_suffix(".py").exists() for path in folders):
                yield node.value


def test_no_string_hides_an_import_of_an_app_above():
    found = {(name, each) for name, tree in sources() for each in modules_named_above(name.split("/")[0], tree)}
    assert not found, "let the app above register what this one needs"


def test_a_string_that_hides_an_import_is_found():
    hidden = ast.parse('import_module("orders.services"); import_string("orders.services.place_order")')
    assert list(modules_named_above("outbox", hidden)) == ["orders.services", "orders.services.place_order"]
    assert not list(modules_named_above("orders", hidden))


def test_contracts_import_contracts_only():
    imported = {
        node.module
        for name, tree in sources()
        if re.match(r"\w+/contracts\b", name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in APPS
    }
    assert {module for module in imported if module.split(".")[1:2] != ["contracts"]} == set()


def test_the_project_knows_its_apps():
    assert sorted(settings.OUTBOX_PROJECT_PACKAGES) == sorted(APPS)
    assert {app.name for app in apps.get_app_configs()} >= set(APPS)


def test_every_nullable_column_documents_null():
    silent = [
        f"{model.__name__}.{field.name}"
        for app in APPS
        for model in apps.get_app_config(app).get_models()
        for field in model._meta.fields
        if field.null and not field.help_text
    ]
    assert not silent


EVENTS = [event for event in registry.known_events() if event.partition(".")[0] in APPS]


@pytest.mark.parametrize("event", EVENTS)
def test_every_published_version_can_still_be_read(event):
    newest = registry.known_events()[event]
    corpus = [CORPUS / f"{event}.v{version}.json" for version in range(1, newest + 1)]
    assert sorted(CORPUS.glob(f"{event}.v*.json")) == sorted(corpus), (
        "add the payload of the new version to the corpus; never change an old one"
    )
    for version, path in enumerate(corpus, start=1):
        loaded = registry.load(event, version, json.loads(path.read_text()))
        if version == newest:
            assert loaded.payload() == json.loads(path.read_text())


CLOCKS = {("timezone", "now"), ("time", "time"), ("datetime", "now"), ("datetime", "utcnow")}
MAY_READ_ITS_OWN_CLOCK = {
    "notifications/management/commands/send_test_notification.py": "of a notification that is not kept",
    "orders/api/limits.py": "of windows that the rate limiter keeps in Redis",
    "outbox/worker/beat.py": "where the steady clock begins, by which ticks are sent",
    "outbox/database/clock.py": "to say how far it is from the database's",
    "outbox/worker/inline.py": "for Flower",
    "outbox/http/retry_after.py": "of an answer that has no date of its own",
    "outbox/broker/redis_transport.py": "until it knows the broker's",
    "outbox/measuring.py": "of durations, which only people read",
    "outbox/tracing.py": "of spans, which only people read",
    "outbox/worker/spans.py": "of a span that begins and ends in one process",
}


def test_times_that_decide_come_from_the_database():
    found = {
        name
        for name, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and (ast.unparse(node.value).rpartition(".")[2], node.attr) in CLOCKS
    }
    assert {name for name in found if not name.startswith("orderflow/")} == set(MAY_READ_ITS_OWN_CLOCK)
