"""The checklists of docs/extending.md, applied to a copy of the checkout: they name all that must change."""

from __future__ import annotations

import filecmp
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from django.db import connection

from tests.extending import checklists
from tests.processes import ROOT, environment

pytestmark = [pytest.mark.slow, pytest.mark.processes, pytest.mark.timeout(700)]

OF_THE_RULES = (
    "tests/test_architecture.py",
    "tests/orders/test_moves.py",
    "tests/orders/test_discarding.py::test_every_step_defines_in_which_statuses_an_order_needs_it",
    "tests/orders/test_discarding.py::test_every_step_that_a_cancellation_makes_needless_closes_its_dead_letter",
    "tests/crash/test_every_crash_point.py::test_every_point_has_a_story_that_dies_there",
    "tests/deployment/test_containers.py",
    "tests/orderflow/test_checks.py::test_by_default_the_sessions_are_those_of_the_containers",
)
"""Tests of the project that an extension must change, besides those in blocks of the document."""

NEW_POINTS = ("chat.answered", "screen.claimed")
"""Crash points that the document adds: a process dies at each."""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the versioned files, including local changes, with the edits of all checklists applied."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in versioned():
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    for edit in checklists.edits():
        checklists.numbered(edit, copy).apply(copy)
    return copy


def versioned() -> list[str]:
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("this is no checkout: git cannot say which files belong to it")
    return [name for name in done.stdout.split("\0") if name]


def run(checkout: Path, words: Sequence[str | Path], *, within: float = 240) -> str:
    """Run a program in the copy, with this test's servers and a database of its own, and return its output."""
    known = environment()
    known |= {
        "DATABASE_URL": re.sub(
            r"/[^/]+$", f"/{connection.settings_dict['NAME']}_extended", known["DATABASE_URL"]
        ),
        "PYTHONPATH": str(checkout),
        "DJANGO_SETTINGS_MODULE": "orderflow.settings",
    }
    for name in [name for name in known if name.startswith(("PYTEST_", "COV_"))]:
        del known[name]
    try:
        done = subprocess.run(
            words,
            cwd=checkout,
            env=known,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=within,
        )
    except subprocess.TimeoutExpired as slow:
        output = slow.stdout.decode(errors="replace") if isinstance(slow.stdout, bytes) else slow.stdout or ""
        raise AssertionError(f"{words} did not end within {within} s:\n{output[-5000:]}") from slow
    assert done.returncode == 0, f"{words}\n{done.stdout[-10000:]}"
    return done.stdout


def run_tests(checkout: Path, *paths: str, named: str = "") -> str:
    selected = ["-k", named] if named else []
    options = ["-q", "--slow", "--create-db", "-p", "no:xdist", "-p", "no:cacheprovider", "--timeout=120"]
    return run(checkout, [sys.executable, "-m", "pytest", *options, *selected, *paths], within=500)


def test_no_file_of_the_outbox_is_changed(checkout):
    names = [name for name in versioned() if name.startswith("outbox/") and (ROOT / name).is_file()]
    _, different, missing = filecmp.cmpfiles(ROOT, checkout, names, shallow=False)
    added = {path.relative_to(checkout).as_posix() for path in (checkout / "outbox").rglob("*.py")} - set(names)

    assert names
    assert (different, missing, added) == ([], [], set())


def test_nothing_is_missing_that_commands_find(checkout, db):
    manage = [sys.executable, "manage.py"]
    run(checkout, [*manage, "makemigrations", "--check", "--dry-run"])
    run(checkout, [*manage, "export_openapi", "--check"])
    for words in (["lint-imports"], ["ruff", "check", "."], ["ruff", "format", "--check", "."]):
        run(checkout, [Path(sys.executable).parent / words[0], *words[1:]])


def test_the_extensions_do_what_they_are_for(checkout, db):
    done = run_tests(checkout, *written_by_the_document())

    assert "passed" in done
    assert "failed" not in done


def written_by_the_document() -> list[str]:
    return [edit.path for edit in checklists.edits() if os.path.basename(edit.path).startswith("test_")]


def test_the_rules_of_the_project_hold_for_the_extensions(checkout, db):
    run_tests(checkout, *OF_THE_RULES)


def test_a_process_that_dies_within_an_extension_loses_nothing_and_does_nothing_twice(checkout, db):
    chosen = " or ".join(NEW_POINTS)
    done = run_tests(
        checkout,
        "tests/crash/test_every_crash_point.py",
        named=f"({chosen}) and not broker_that_forgets",
    )

    assert len(NEW_POINTS) <= int(re.findall(r"(\d+) passed", done)[0])
