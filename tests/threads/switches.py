"""Runs functions in many threads that are switched as often as possible, so that races show in milliseconds."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

SWITCH_INTERVAL = 1e-5
"""Seconds between two switches of threads; Python's own are 0.005 apart."""


def run(*works: Callable[[], object], within: float = 60) -> None:
    """
    Run all of `works` at the same time, each in its own thread, and wait for them.

    Raises:
        Exception: the first error of any of them.
    """
    errors: list[BaseException] = []
    start = threading.Barrier(len(works))

    def guarded(work: Callable[[], object]) -> None:
        try:
            start.wait(within)
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=[work], daemon=True) for work in works]
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(within)
    finally:
        sys.setswitchinterval(before)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    if errors:
        raise errors[0]
