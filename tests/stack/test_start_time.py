"""How long `python3 run.py` takes from the prompt to the first fulfilled order, on a copy of the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest

from orderflow.stack.checkout.folders import ROOT

LONGEST = 20.0
"""
Seconds of a start with everything installed and the database there. It takes 2.4 to 2.9 on two processors that
others use too, and is wanted within 3 on a quiet machine; this bound holds on one that runs other tests.
"""

LEFT_OUT = (".git", ".venv", ".orderflow", "__pycache__", "staticfiles", ".*_cache")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture
def checkout(tmp_path):
    """Return a copy of this checkout with the packages that are installed for it."""
    copy = tmp_path / "checkout"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*LEFT_OUT), symlinks=True)
    (copy / ".venv").symlink_to(ROOT / ".venv")
    return copy


def start(checkout):
    """Run the demo once; return the seconds until it was ready, and until the first order was fulfilled."""
    ours = ("DATABASE", "BROKER", "REDIS", "SECRET_KEY", "ORDERFLOW", "DJANGO")
    done = subprocess.run(
        [sys.executable, "run.py", "--once", "--orders", "8"],
        cwd=checkout,
        env={name: value for name, value in os.environ.items() if not name.startswith(ours)},
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    ready = re.search(r"READY for orders in ([\d.]+) s", done.stdout)
    fulfilled = re.search(r"start to first fulfilled order\s+│\s+([\d.]+) s", done.stdout)
    assert ready, done.stdout
    assert fulfilled, done.stdout
    return float(ready[1]), float(fulfilled[1])


def test_a_second_start_fulfils_an_order_within_seconds(checkout):
    first = start(checkout)
    ready, fulfilled = start(checkout)

    sys.stdout.write(f"first start: {first[1]} s; second start: ready {ready} s, first order {fulfilled} s")
    assert fulfilled < LONGEST
