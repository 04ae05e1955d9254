"""Included by a worker of a test, imported by nobody else: it dies where the test says."""

from __future__ import annotations

import os

from outbox import crash_points


def die(name: str) -> None:
    if name == os.environ["DIE_AT"]:
        os._exit(int(os.environ["DIE_WITH"]))


crash_points.arm(die)
