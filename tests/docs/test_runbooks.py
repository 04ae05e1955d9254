"""Every alert has a runbook and vice versa; every command, option, service and situation in them exists."""

from __future__ import annotations

import re
import shlex
from argparse import ArgumentParser

import pytest
import yaml
from django.core.management import get_commands, load_command_class

from tests.deployment.compose import FILES, together
from tests.processes import ROOT

RUNBOOKS = ROOT / "docs" / "runbooks"
PAGES = sorted(RUNBOOKS.glob("*.md"))
SITUATIONS = {
    "consumer-lag",
    "erasure-request",
    "leaked-token",
    "poison-message",
    "restore-from-backup",
    "stuck-order",
    "wrong-deployment",
}
OTHERS = {"README", "incident-template"}
SECTIONS = ["Impact", "Diagnosis", "Mitigation"]
COMPOSE = ("up", "restart", "start", "stop", "ps", "logs", "exec", "kill", "pull")


def rules():
    groups = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yml").read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def runbooks():
    return [page for page in PAGES if page.stem not in OTHERS]


def blocks(text, kind):
    """The command lines of all blocks of a kind, also of indented ones; continued lines are joined."""
    for block in re.findall(rf"^ *```{kind}\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
        yield from filter(None, (line.strip() for line in block.replace("\\\n", " ").splitlines()))


def test_every_alert_has_a_runbook_and_every_runbook_an_alert_or_a_situation():
    assert {page.stem for page in PAGES} == rules().keys() | SITUATIONS | OTHERS


@pytest.mark.parametrize("name", sorted(rules()))
def test_an_alert_links_to_its_runbook(name):
    assert rules()[name]["annotations"]["runbook_url"].endswith(f"/{name}.md")


@pytest.mark.parametrize("page", runbooks(), ids=lambda page: page.stem)
def test_a_runbook_has_its_sections_and_commands_that_a_machine_can_run(page):
    text = page.read_text()
    sections = re.findall(r"^## (.+)$", text, re.MULTILINE)

    assert sections[:3] == SECTIONS
    assert sections[3:] in ([], ["Afterwards"])
    assert re.match(r"# .+\n\n\S", text), "its meaning is the first paragraph"
    mitigation = re.search(r"^## Mitigation\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert list(blocks(mitigation[1], "sh"))
    assert len(text.splitlines()) <= 80, "nobody reads more at two in the morning"


def parsers(parser):
    """A parser, and those of its subcommands."""
    yield parser
    for action in parser._actions:
        if isinstance(action.choices, dict):
            for one in action.choices.values():
                if isinstance(one, ArgumentParser):
                    yield from parsers(one)


def unknown_options(words):
    command = words[0]
    assert command in get_commands(), command
    app = get_commands()[command]
    parser = load_command_class(app, command).create_parser("manage.py", command)
    known = {option for one in parsers(parser) for action in one._actions for option in action.option_strings}
    return [word for word in words[1:] if word.startswith("-") and word not in known]


def service_of(words):
    """The services that a command of Compose names."""
    named = [word for word in words[1:] if not word.startswith("-")]
    if words[0] in ("exec",):
        return named[:1]
    if words[0] in ("kill", "logs"):
        return named[-1:]
    return named


def is_real(line):
    words = shlex.split(line)
    if words[:2] == ["python3", "run.py"]:
        return not unknown_options(words[2:])
    if words[:2] == ["docker", "compose"]:
        services = together(*FILES)["services"].keys()
        rest = [word.partition("=")[0] for word in words[2:]]
        return rest[0] in COMPOSE and set(service_of(rest)) <= services
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_a_runbook_exists_with_its_options(page):
    text = page.read_text()
    for line in blocks(text, "sh"):
        assert is_real(line), line
    for line in blocks(text, "console"):
        for command in line.split(" && "):
            if command.startswith(("docker compose", "python3 run.py")):
                assert is_real(command), command
            else:
                assert command.startswith(("psql ", "docker inspect ", "export ", "WHERE")), command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_inline_commands_of_a_runbook_exist(page):
    for line in re.findall(r"`((?:docker compose|python3 run\.py) [^`…]+)`", page.read_text()):
        assert is_real(line), line


def test_the_index_names_every_page():
    index = (RUNBOOKS / "README.md").read_text()
    for page in PAGES:
        if page.stem != "README":
            assert f"({page.name})" in index, page.name


def test_operations_link_to_the_index():
    assert "(runbooks/README.md)" in (ROOT / "docs" / "operations.md").read_text()


def test_the_incident_template_has_a_timeline_and_a_review():
    text = (RUNBOOKS / "incident-template.md").read_text()
    for heading in ("## Timeline", "## Review", "## Actions"):
        assert heading in text
