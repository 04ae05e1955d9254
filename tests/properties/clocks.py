"""A wrong clock for this process: for the project's code, and for the ids it creates."""

from __future__ import annotations

import datetime as dt
import time

import pytest
import uuid6
from django.utils import timezone


class Clock:
    """This process's clock, set ahead or back. The database, Redis and the providers use their own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = dt.timedelta()
        now, nanoseconds = timezone.now, time.time_ns
        monkeypatch.setattr(timezone, "now", lambda: now() + self.ahead)
        monkeypatch.setattr(time, "time_ns", lambda: nanoseconds() + round(self.ahead.total_seconds() * 1e9))

    def put(self, ahead: dt.timedelta) -> None:
        """Be wrong by so much; ids start from there, as they do in another process."""
        self.ahead = ahead
        uuid6._last_v7_timestamp = None
