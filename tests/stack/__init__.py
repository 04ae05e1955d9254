"""The servers and the supervisor behind run.py, with real processes."""

import time
from collections.abc import Callable
from typing import Any


def wait_until(condition: Callable[[], Any], process: Any = None, seconds: float = 20.0) -> None:
    """Wait for a condition; fail if the process that should bring it about has ended, or when time is up."""
    end = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, f"ended with {process.returncode}"
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.01)
