"""Included by the worker of a test, which then dies at the point that the test sets."""

from __future__ import annotations

import os

from outbox import crash_points


def die(name: str) -> None:
    if name == os.environ["DIE_AT"]:
        os._exit(int(os.environ["DIE_WITH"]))


crash_points.arm(die)
