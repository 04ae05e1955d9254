"""`python -m outbox` is the `celery` command, and loads only the subcommand that is used."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from outbox import __main__ as command
from tests.processes import ROOT

LOADED = """
import sys
from outbox import __main__
try:
    __main__.main()
finally:
    print(sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""
OF_OTHER_SUBCOMMANDS = ("click_repl", "prompt_toolkit", "flower", "tornado")
OF_A_PROJECT = """
import celery
app = celery.Celery("of_a_project", broker="memory://", set_as_current=False)
app.conf.accept_content = ["json", "msgpack"]
@app.task
def shown(): ...
import atexit, sys
from kombu import serialization
atexit.register(lambda: print("msgpack" in sys.modules, "yaml" in sys.modules))
"""
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("CELERY")},
    "SECRET_KEY": "command",
    "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing",
    "BROKER_URL": "redis://127.0.0.1:1/0",
}


def run(*arguments, code=None):
    """Run the command, or other code with the same arguments."""
    return subprocess.run(
        [sys.executable, *(("-m", "outbox") if code is None else ("-c", code)), *arguments],
        env=ENVIRONMENT,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["-A", "mysite", "worker", "-Q", "a"], ("mysite", "worker", ["-Q", "a"])),
        (["--app", "mysite", "beat"], ("mysite", "beat", [])),
        (["--app=mysite", "inspect", "ping"], ("mysite", "inspect", ["ping"])),
        (["-A", "mysite", "flower"], ("", "", [])),
        (["-A", "mysite", "-q", "worker"], ("", "", [])),
        (["-q", "-A", "mysite", "worker"], ("", "", [])),
        (["worker"], ("", "", [])),
        (["-A", "mysite"], ("", "", [])),
        ([], ("", "", [])),
    ],
)
def test_other_subcommands_and_options_before_them_are_left_to_celery(arguments, found):
    application, name, options = command.split(arguments)

    assert (application, name, list(options)) == found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["worker", "beat", "inspect"])
def test_a_subcommand_offers_what_it_offers_in_celery_and_loads_no_other(name):
    answer = run("-A", "orderflow", name, "--help", code=LOADED)
    shown = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "orderflow", name, "--help"],
        env=ENVIRONMENT,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert answer.returncode == 0
    options = [line.split()[0] for line in shown.stdout.splitlines() if line.strip().startswith("-")]
    assert len(options) >= 5
    assert [option for option in options if option not in answer.stdout] == []
    loaded = set(json.loads(answer.stderr.splitlines()[-1].replace("'", '"')))
    assert loaded & {*OF_OTHER_SUBCOMMANDS, "greenlet", "pygments", *command.FORMATS} == set()


@pytest.mark.slow
def test_the_formats_that_an_application_accepts_are_loaded(tmp_path):
    (tmp_path / "of_a_project.py").write_text(OF_A_PROJECT)
    answer = subprocess.run(
        [sys.executable, "-m", "outbox", "-A", "of_a_project", "worker", "--help"],
        env=ENVIRONMENT | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert answer.stdout.splitlines()[-1] == "True False"


@pytest.mark.slow
def test_a_wrong_application_is_reported_as_celery_reports_it():
    answer = run("-A", "no_such_project", "worker")

    assert answer.returncode == 2
    assert "Unable to load celery application" in answer.stderr
    assert "no_such_project" in answer.stderr


@pytest.mark.slow
def test_a_subcommand_of_another_package_runs():
    answer = run("-A", "orderflow", "flower", "--help")

    assert answer.returncode == 0
    assert "flower" in answer.stdout.lower()
