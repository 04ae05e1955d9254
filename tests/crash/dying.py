"""Included by a worker of a test: it dies where the test says."""

from __future__ import annotations

import os

from outbox import crash_points

DIED = 77


def die(name: str) -> None:
    if name == os.environ["DIE_AT"]:
        os._exit(DIED)


crash_points.arm(die)
