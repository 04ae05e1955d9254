"""The benchmark is separate: the project does not import it, and one of its modules reads the environment."""

from __future__ import annotations

import ast

from benchmarks import environment
from tests.processes import ROOT

APPS = ("outbox", "orders", "notifications", "orderflow")
STARTS_IT = "orderflow/stack/commands/bench.py"


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_nothing_of_the_project_imports_the_benchmark_but_the_command_that_starts_it():
    found = {
        path.relative_to(ROOT).as_posix()
        for app in APPS
        for path in (ROOT / app).rglob("*.py")
        if any(name.partition(".")[0] == "benchmarks" for name in imports(path))
    }
    assert found == {STARTS_IT}


def test_variables_are_read_in_one_place():
    reading = ("os.environ.get(", "os.environ[", "os.getenv(")
    found = {
        path.name
        for path in (ROOT / "benchmarks").rglob("*.py")
        if any(text in path.read_text() for text in reading)
    }
    assert found == {f"{environment.__name__.rpartition('.')[2]}.py"}
