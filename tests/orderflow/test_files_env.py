"""Settings in files: possible for every one, in the same way, and never together with the variable."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.deployment.test_containers import settings_read
from tests.processes import ROOT

NEEDED = {
    "SECRET_KEY": "s" * 50,
    "DATABASE_URL": "postgresql://me:secret@db.example/orders",
    "BROKER_URL": "rediss://broker.example",
    "ORDERFLOW_ENV": "test",
}
SAY = "from orderflow import settings; print([settings.SECRET_KEY, settings.BROKER_URL, settings.EMAIL_HOST])"


def read(tmp_path, **environment):
    """The settings in an empty folder, without a .env."""
    return subprocess.run(
        [sys.executable, "-c", SAY],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environment},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )


def test_every_setting_can_be_in_a_file(tmp_path):
    example = dict(
        line.split("=", 1)
        for line in (ROOT / ".env.example").read_text().splitlines()
        if "=" in line and not line.startswith("#")
    )
    named = {}
    for name in settings_read():
        (tmp_path / name).write_text(NEEDED.get(name, example[name]) + "\n")
        named[f"{name}_FILE"] = str(tmp_path / name)
    done = read(tmp_path, **named)

    assert done.returncode == 0, done.stderr
    expected = [NEEDED["SECRET_KEY"], "rediss://broker.example?ssl_cert_reqs=required", "127.0.0.1"]
    assert done.stdout.strip() == str(expected)


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"SECRET_KEY_FILE": "/no/such/file"}, "SECRET_KEY_FILE names /no/such/file, which cannot be read"),
        ({"SECRET_KEY_FILE": "/"}, "SECRET_KEY_FILE names /, which cannot be read"),
        ({"SECRET_KEY_FILE": "/etc/hostname", "SECRET_KEY": "hidden"}, "SECRET_KEY_FILE are both set"),
    ],
)
def test_problems_with_a_file_are_reported_at_start(tmp_path, changed, complaint):
    done = read(tmp_path, **{**NEEDED, "SECRET_KEY": "", **changed})

    assert done.returncode != 0
    assert complaint.lower() in done.stderr.lower()
    assert "hidden" not in done.stderr


def test_a_file_that_is_not_named_changes_nothing(tmp_path):
    done = read(tmp_path, **NEEDED, SECRET_KEY_FILE="")
    assert done.returncode == 0, done.stderr
