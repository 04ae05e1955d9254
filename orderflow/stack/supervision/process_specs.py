"""What the supervisor supervises: a spec is one process, how to start it, and how to tell that it is ready."""

import dataclasses
import enum
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

Process = subprocess.Popen[bytes]


class Kind(enum.Enum):
    """What the end of a spec's process means."""

    SERVER = "server"  # nothing works without it: everything ends
    SERVICE = "service"  # it is started again
    STEP = "step"  # it has done its work, or the start has failed


class StopRank(enum.IntEnum):
    """Who is stopped before whom; the database is the last one to go."""

    APPLICATION = 0
    SANDBOX = 1
    BROKER = 2
    DATABASE = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProcessSpec:
    """
    One process of the stack.

    `after` names the specs that must be ready before it starts. `is_ready` is asked again and again, so it
    must answer within a fraction of a second. `early` specs are what the first order passes through; the
    others follow. An `essential` spec that does not come up ends the start.
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
