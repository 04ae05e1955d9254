"""docs/coming-from.md: the code before can be read, and the code after does what the code before did."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import pytest

from tests.processes import ROOT, environment

DOCUMENT = (ROOT / "docs" / "coming-from.md").read_text()
SECTION = re.compile(r"^## (?P<title>.+)\n(?P<text>(?:(?!^## ).*\n?)*)", re.M)
BLOCK = re.compile(r'^```python title="(?P<path>[^"]+)"(?: (?P<kind>\w+))?\n(?P<text>.*?)^```$', re.M | re.S)

BLOCKS = [
    (section["title"], block["path"], block["kind"] or "run", block["text"])
    for section in SECTION.finditer(DOCUMENT)
    for block in BLOCK.finditer(section["text"])
]
"""Section, path, kind and text. `before` is the old code, `run` is run, `after` is wiring of a project."""

SIGN_UP = """
import importlib, sys
import django
from django.conf import settings
django.setup()
settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
from django.core import mail
from outbox import registry, testing
from outbox.models import DeadLetter

mail.outbox = []
for package in sys.argv[1:]:
    workflows = importlib.import_module(f"{package}.workflows")
    registry.subscribe(workflows.SUBSCRIPTIONS)
for package in sys.argv[1:]:
    services = importlib.import_module(f"{package}.services")
    services.sign_up(package, f"{package}@example.com")
    assert not [one for one in mail.outbox if package in one.to[0]], "sent before the relay has run"
ran = testing.drain()
assert not DeadLetter.objects.exists(), DeadLetter.objects.values_list("error")
for package in sys.argv[1:]:
    print(package, ran.count(f"{package}.tasks.welcome"), sum(package in one.to[0] for one in mail.outbox))
"""


def packages():
    return list(dict.fromkeys(path.split("/")[0] for _, path, kind, _ in BLOCKS if kind == "run"))


def test_each_way_has_code_before_and_code_after():
    titles = [section["title"] for section in SECTION.finditer(DOCUMENT)]

    assert len(titles) == 4
    for title in titles:
        kinds = [kind for section, _, kind, _ in BLOCKS if section == title]
        assert {"before", "run"} <= set(kinds)
        section = next(found["text"] for found in SECTION.finditer(DOCUMENT) if found["title"] == title)
        assert "**You get:**" in section
        assert "**You lose:**" in section


@pytest.mark.parametrize(("section", "path", "kind", "text"), BLOCKS, ids=[f"{b[1]} {b[2]}" for b in BLOCKS])
def test_the_code_of_each_block_compiles(section, path, kind, text):
    ast.parse(text)
    compile(text, path, "exec")


def test_no_code_is_left_out_of_the_tests():
    assert len(re.findall("^```python", DOCUMENT, re.M)) == len(BLOCKS)


@pytest.mark.slow
def test_the_code_after_each_change_sends_one_mail(drain, tmp_path):
    for _, path, kind, text in BLOCKS:
        if kind == "run":
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", SIGN_UP, *packages()],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
        env={
            **environment(),
            "DJANGO_SETTINGS_MODULE": "orderflow.settings",
            "PYTHONPATH": f"{tmp_path}:{ROOT}",
        },
    )  # fmt: skip

    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines() == [f"{package} 1 1" for package in packages()]
    assert len(packages()) == 4
