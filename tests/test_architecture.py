"""Rules of the design that no linter knows."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from django.apps import apps

from orders import contracts
from outbox import registry
from tests.processes import ROOT

APPS = ("outbox", "orders", "notifications", "orderflow")
SENDERS = {"delay", "apply_async", "send_task", "delay_on_commit", "apply_async_on_commit"}
MAY_SEND = {"outbox/dispatch.py"}
MAY_READ_THE_ENVIRONMENT = {
    "orderflow/celery.py": "names the settings module",
    "orderflow/wsgi.py": "names the settings module",
}
CORPUS = ROOT / "tests" / "contracts"


def sources():
    for app in APPS:
        for path in sorted((ROOT / app).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text())


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


def test_nothing_prints_but_the_servers():
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


def test_every_nullable_column_says_what_null_means():
    silent = [
        f"{model.__name__}.{field.name}"
        for app in ("outbox", "orders", "notifications")
        for model in apps.get_app_config(app).get_models()
        for field in model._meta.fields
        if field.null and not field.help_text
    ]
    assert not silent


@pytest.mark.parametrize("event", contracts.EVENTS, ids=lambda event: event.name)
def test_what_was_ever_published_can_still_be_read(event):
    corpus = sorted(CORPUS.glob(f"{event.name}.v*.json"))
    assert [path.name for path in corpus] == [
        f"{event.name}.v{version}.json" for version in range(1, event.version + 1)
    ], "add the payload of the new version to the corpus; never change an old one"
    for version, path in enumerate(corpus, start=1):
        loaded = registry.load(event.name, version, json.loads(path.read_text()))
        if version == event.version:
            assert loaded.payload() == json.loads(path.read_text())
