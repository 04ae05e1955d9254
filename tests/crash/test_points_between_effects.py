"""There must be a crash point between any two durable effects of a process."""

from __future__ import annotations

import ast
import functools

import pytest
from django.conf import settings
from django.core.management import call_command

from outbox.relay import relay
from tests.crash import stories
from tests.crash.effects import Watch, watching
from tests.processes import ROOT
from tests.slow import but_first

SEEN: dict[str, Watch] = {}
"""The records of the stories so far."""

PACKAGES = sorted(set(settings.OUTBOX_PROJECT_PACKAGES) - {"orderflow"})
WRITES = {
    "update", "create", "get_or_create", "update_or_create", "bulk_create", "bulk_update", "delete", "save",
}  # fmt: skip

WRITES_ALONE = {
    "orders.admin.": "a person's click: one transaction",
    "orders.management.": "one statement for a person who waits",
    "orders.dead_letters.given_back.": "in the transaction that discards, after an operator's decision",
    "orders.clients.tokens.": "one row for a person who waits",
    "orders.imports.spool.": "a temporary file of an import's own, not the database",
    "outbox.lean_imports.": "names of modules, not rows",
    "outbox.relay.preparing._c": "only for more messages than a story has: test_long_queues",
    "orders.reconciliation.recovery._write": "in the transaction of a repair",
    "outbox.verification.restores.": "one transaction, which the next session that looks repeats",
    "orders.stock._shift": "in its caller's transaction; the stories do not see it, as it returns no row",
    "orders.invariants.repairs.": "one transaction per repair, opened by the examination",
    "outbox.relay.listener.": "a flag that is set again; it makes work sooner, not sure",
    "outbox.periodic.": "what is noted of a run: nothing follows from it but when the next one is due",
    "outbox.retention.partitions.": "the shape of a table: one transaction per step, which can be repeated",
    "outbox.retention.partition_table.": "the same",
    "outbox.verification.examination": "one transaction per repair, one row per report",
    "outbox.worker.unreadable.": "in a worker's own process: test_worker_points",
    "outbox.verification.outbox_repairs.": "one transaction per repair, opened by the examination",
    "outbox.worker.rounds.RoundTask.record_buried": "a savepoint in the transaction that buries",
    "outbox.inbox.once": "for consumers of other apps, in their transaction",
    "outbox.django_tasks.": "one row, one statement at a time: tests/package/test_django_tasks",
    "outbox.management.commands.outbox_status.": "a screen",
    "outbox.publisher.messages": "`tracing.create` writes nothing: its caller inserts the rows",
    "outbox.statistics.counting.forget_deleted": "in the transaction of the piece that is counted",
    "outbox.statistics.totals.snapshot": "a transaction that only reads",
    "outbox.tracing.replay": "in the transaction that replays, and only if it is traced",
    "outbox.status.add": "a dictionary",
    "outbox.testing.register": "a dictionary",
}
"""Functions that write but are in no story, by prefix, and why that is right."""


@pytest.fixture
def see(begin, world, monkeypatch):
    """Watch a story, once."""

    def see(name):
        if name not in SEEN:
            call_command("flush", interactive=False, verbosity=0, reset_sequences=False)
            world.clear()
            story = begin(name)
            with watching(monkeypatch) as watch:
                story.work(story)
            SEEN[name] = watch
        return SEEN[name]

    return see


@pytest.mark.parametrize("name", but_first(stories.STORIES, first=2))
def test_there_is_a_point_between_any_two_durable_effects(see, name):
    watch = see(name)

    assert watch.seen
    assert watch.gaps == []


def test_a_query_for_messages_is_an_effect_when_it_claims_one(begin, monkeypatch):
    begin("fulfilled")
    with watching(monkeypatch) as watch:
        claimed = [len(relay.claim(1)), len(relay.claim(1))]

    assert claimed == [1, 0]
    assert len(watch.seen) == 1


@pytest.mark.slow
def test_every_function_that_writes_is_in_a_story(see):
    covered = set().union(*(see(name).writers for name in stories.STORIES))

    missing = {name for name in functions_that_write() - covered if not name.startswith(tuple(WRITES_ALONE))}
    assert not missing, "add a story that passes through them, and points between their effects"


def test_every_exception_is_needed():
    writing = functions_that_write()

    assert not [start for start in WRITES_ALONE if not any(name.startswith(start) for name in writing)]


@functools.cache
def functions_that_write():
    """The dotted names of functions that open a transaction, or write through the ORM or with SQL."""
    found = set()
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if "migrations" in path.parts:
                continue
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            for name, function in functions_of(ast.parse(path.read_text()), module):
                if any(writes(node) for node in ast.walk(function)):
                    found.add(name)
    return found


def functions_of(tree, prefix):
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef):
            yield f"{prefix}.{node.name}", node
        elif isinstance(node, ast.ClassDef):
            yield from functions_of(node, f"{prefix}.{node.name}")


def writes(node):
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
        return False
    called = ast.unparse(node.func)
    if called == "transaction.atomic":
        return True
    if node.func.attr == "execute":
        statement = ast.unparse(node.args[0]) if node.args else ""
        return any(word in statement for word in ("INSERT", "UPDATE", "DELETE"))
    return node.func.attr in WRITES and not called.startswith(("self.", "hashlib."))
