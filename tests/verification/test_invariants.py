"""Each corruption makes exactly its own invariant fail."""

from __future__ import annotations

import io
import shlex

import pytest
from django.core import management
from django.core.management import call_command

from outbox.command_lines import command_line
from outbox.verification import catalogue, examination
from tests.processes import ROOT
from tests.verification.corruptions import CORRUPTIONS, MORE, spoil

pytestmark = pytest.mark.django_db

NAMES = [invariant.name for invariant in catalogue.invariants() if not invariant.needs_providers]


def test_a_consistent_system_passes(books):
    report = examination.run()

    assert report.failed == []
    assert [finding.verdict for finding in report.findings] == ["ok"] * len(NAMES)


def test_every_invariant_has_a_corruption():
    assert sorted(CORRUPTIONS) == sorted(NAMES)


WAYS = [*CORRUPTIONS.items(), *MORE]


@pytest.mark.parametrize(("name", "sql"), WAYS, ids=[name for name, _ in WAYS])
def test_each_corruption_fails_exactly_its_invariant(books, name, sql):
    spoil(books, sql)
    report = examination.run()

    assert (report.failed, report.passed) == ([name], False)
    [finding] = [finding for finding in report.findings if finding.count]
    assert finding.ids
    assert_works_when_pasted(finding.command)


def assert_works_when_pasted(line):
    if line.startswith("docs/"):
        file, heading = line.rstrip("”").split(", “")
        assert f"## {heading}\n" in (ROOT / file).read_text()
        return
    begin = command_line("x").removesuffix("x")
    assert line.startswith(begin)
    name, *words = shlex.split(line.removeprefix(begin))
    command = management.load_command_class(management.get_commands()[name], name)
    command.create_parser("", name).parse_args(words)
    if name not in ("verify", "outbox_status"):  # these run here all the time, and say that something is wrong
        call_command(name, *words, stdout=io.StringIO())
