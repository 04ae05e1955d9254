"""Everything that the documents name exists: commands, files, links, tests."""

from __future__ import annotations

import ast
import functools
import re

import pytest
from django.core.management import get_commands

from outbox.verification import catalogue
from tests.processes import ROOT

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs").glob("*/*.md"))]
OF_RUN_PY = {"test", "bench", "observe", "alerts", "up", "down", "status", "reset", "help"}
PROMISE = (
    "If the transaction that placed an order commits, every step of that order runs at least once, takes "
    "effect at most once for as long as the order exists, and a step that cannot finish is visible with its "
    "reason and never disappears. Not promised: an order among different orders; that a provider never sees "
    "a request twice (it sees the same key twice); that a recipient reads a message the provider accepted."
)
TESTS = {
    name
    for path in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
}


def marks_in(nodes):
    return [mark for node in nodes for mark in re.findall(r"\bmark\.(slow|nightly)\b", ast.unparse(node))]


@functools.cache
def options_needed():
    """Return the option that a test needs if an ordinary run has no case of it, by test name."""
    needed = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        body = ast.parse(path.read_text()).body
        of_all = marks_in(node for node in body if ast.unparse(node).startswith("pytestmark ="))
        for node in body:
            if isinstance(node, ast.FunctionDef):
                decorators = (one for one in node.decorator_list if "parametrize" not in ast.unparse(one))
                if marks := marks_in(decorators) + of_all:
                    needed[node.name] = f"--{marks[0]}"
    return needed


def shell_lines(text):
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        yield from filter(None, (line.strip() for line in block.splitlines()))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_of_a_document_exists(document):
    for line in shell_lines(document.read_text()):
        words = line.split()
        if document.parent.name == "runbooks" and words[:2] == ["docker", "compose"]:
            continue  # see test_runbooks.py
        assert words[:2] == ["python3", "run.py"], line
        if len(words) > 2 and not words[2].startswith("-"):
            assert words[2] in OF_RUN_PY or words[2] in get_commands(), line


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_in_a_document_has_a_target(document):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", document.read_text()):
        assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_anchor_of_a_document_is_a_heading(document):
    for target, anchor in re.findall(r"\]\(([^)#:]+)#([^)]+)\)", document.read_text()):
        headings = re.findall(r"^#+ (.+)$", (document.parent / target).read_text(), re.MULTILINE)
        assert anchor in {heading.lower().replace(" ", "-") for heading in headings}, anchor


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_test_a_document_names_exists(document):
    for name in re.findall(r"`(test_\w+)`", document.read_text()):
        assert name in TESTS, name


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_document_says_which_option_a_test_it_names_needs(document):
    needed = options_needed()
    for name, option in re.findall(r"`(test_\w+)`(?:\s\(with\s`(--\w+)`\))?", document.read_text()):
        assert option == needed.get(name, ""), name


def test_the_readme_contains_the_promise_word_for_word():
    readme = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", (ROOT / "README.md").read_text().replace("\n> ", " "))
    assert PROMISE in readme


def test_every_invariant_has_a_line_for_when_it_fails():
    text = (ROOT / "docs" / "operations.md").read_text()
    [section] = re.findall(r"^## Reading a failed verdict\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    named = [name for row in re.findall(r"^\| (`[^|]+) \|", section, re.MULTILINE) for name in row.split(", ")]

    assert sorted(named) == sorted(f"`{invariant.name}`" for invariant in catalogue.invariants())


def test_decisions_are_numbered_without_gaps():
    numbers = [int(path.name[:4]) for path in sorted((ROOT / "docs" / "decisions").glob("*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))


def test_problems_of_the_api_are_documented():
    assert (ROOT / "docs" / "problems.md").read_text().strip()
