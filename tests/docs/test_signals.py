"""`docs/signals.md` names every signal that the code emits, with its fields."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
APPS = ("outbox", "orders", "notifications", "orderflow")
ROW = re.compile(r"\| `([a-z_]+\.[a-z_]+)` \| (.+?) \| .+ \|")
MORE = "…"
"""Stands for fields whose names are known only when the code runs."""


def documented():
    rows = ROW.findall((ROOT / "docs" / "signals.md").read_text())
    assert len(rows) == len({name for name, _ in rows}), "a signal has two rows"
    return {name: set(re.findall(r"`([^`]+)`", fields)) for name, fields in rows}


def emitted():
    """The signals in the code with their fields, and for each signal whether it has others as well."""
    fields, others = defaultdict(set), defaultdict(bool)
    for app in APPS:
        for path in (ROOT / app).rglob("*.py"):
            for function in ast.walk(ast.parse(path.read_text())):
                if isinstance(function, ast.FunctionDef):
                    for call in _calls(function):
                        for name in _texts(call.args[0], function):
                            fields[name] |= {keyword.arg for keyword in call.keywords if keyword.arg}
                            others[name] |= any(keyword.arg is None for keyword in call.keywords)
    return fields, others


def _calls(function):
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "telemetry.emit":
            yield node


def _texts(node, function):
    """The texts that an expression can be: a text, a choice between two, or a variable of the function."""
    if isinstance(node, ast.Constant):
        return [node.value]
    if isinstance(node, ast.IfExp):
        return _texts(node.body, function) + _texts(node.orelse, function)
    assert isinstance(node, ast.Name), f"{ast.unparse(node)} does not show which signal is emitted"
    values = [
        each.value
        for each in ast.walk(function)
        if isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == node.id
    ]
    assert values, f"{node.id} does not show which signal is emitted"
    return [text for value in values for text in _texts(value, function)]


def test_every_signal_is_documented_and_every_documented_signal_is_emitted():
    fields, _ = emitted()

    assert len(fields) > 50, "the search for signals has found only a few"
    assert documented().keys() == fields.keys()


def test_every_field_is_documented():
    fields, others = emitted()
    table = documented()

    wrong = {
        name: sorted(table[name] ^ named)
        for name, named in fields.items()
        if (table[name] ^ named if not others[name] else named - table[name])
    }
    assert not wrong
