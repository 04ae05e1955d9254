"""
A wrong clock for one process: with this folder on PYTHONPATH, its clock is CLOCK_AHEAD seconds ahead.

Python imports this module before anything else. With CLOCK_FILE, the seconds are read from that file on every
call, so that the clock can be changed while the process runs; without the file the clock is right.
"""

import datetime
import os
import time
from pathlib import Path
from typing import Any

_time, _datetime = time.time, datetime.datetime
_file = os.environ.get("CLOCK_FILE")


def ahead() -> float:
    """The number of seconds by which the clock is ahead; negative if it is behind."""
    if not _file:
        return float(os.environ["CLOCK_AHEAD"])
    try:
        return float(Path(_file).read_text() or 0)
    except FileNotFoundError:
        return 0.0


class Anything(type):
    """Real `datetime` objects count as instances too."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _datetime)


class Skewed(datetime.datetime, metaclass=Anything):
    """A `datetime` whose current time is that of the wrong clock."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Any:
        return _datetime.fromtimestamp(_time() + ahead(), tz)

    @classmethod
    def utcnow(cls) -> Any:
        return _datetime.fromtimestamp(_time() + ahead(), datetime.UTC).replace(tzinfo=None)


def install() -> None:
    """Replace Python's clock in this process."""
    patched: Any = datetime
    time.time = lambda: _time() + ahead()
    time.time_ns = lambda: int(time.time() * 1_000_000_000)
    patched.datetime = Skewed


if _file or "CLOCK_AHEAD" in os.environ:
    install()
