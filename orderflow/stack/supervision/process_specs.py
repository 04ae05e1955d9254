"""
What the supervisor supervises: the description of one process, how to start it, and how to detect readiness.
"""

import dataclasses
import enum
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

Process = subprocess.Popen[bytes]


class Kind(enum.Enum):
    """What the end of the process means."""

    SERVER = "server"  # nothing works without it: the stack stops
    SERVICE = "service"  # it is restarted
    STEP = "step"  # it has done its work, or the start has failed


class StopRank(enum.IntEnum):
    """The order in which processes are stopped; the database is last."""

    APPLICATION = 0
    SANDBOX = 1
    BROKER = 2
    DATABASE = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProcessSpec:
    """
    One process of the stack.

    `after` names the processes that must be ready before it starts. `is_ready` is called repeatedly, so it must
    return within a fraction of a second. `early` processes are those that the first order needs; the others
    follow. If an `essential` process does not come up, the start fails.
    """

    name: str
    kind: Kind
    start: Callable[[], Process]
    is_ready: Callable[[Process], bool]
    log: Path
    after: tuple[str, ...] = ()
    early: bool = True
    essential: bool = True
    stop_by: signal.Signals = signal.SIGTERM
    stop_rank: StopRank = StopRank.APPLICATION
    may_try_again: Callable[[str], bool] = lambda log: False
