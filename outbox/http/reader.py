"""
Reads a socket within limits of size and time.

Socket timeouts apply to the time between two bytes, so a server that sends a byte now and then would block a
worker for as long as it likes. Adapters treat an exceeded limit like a broken connection.
"""

from __future__ import annotations

import io
import time
from typing import Any


class TooMuch(OSError):
    """The response exceeds the size limit."""


class Reader(io.RawIOBase):
    """Reads a socket, up to a number of bytes and a number of seconds."""

    def __init__(self, sock: Any, *, seconds: float, most: int) -> None:
        self._sock, self._left, self._ends = sock, most, time.monotonic() + seconds
        # The socket is really closed when this file is closed, even if its owner has closed it before.
        self._file = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """
        Read the available bytes.

        Raises:
            TimeoutError: if the time limit is exceeded.
            TooMuch: if the size limit is exceeded.
        """
        seconds = self._ends - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("the response took too long")
        if self._left <= 0:
            raise TooMuch("the response is too long")
        before = self._sock.gettimeout()
        self._sock.settimeout(seconds if before is None else min(seconds, before))
        try:
            found = self._sock.recv_into(memoryview(buffer)[: self._left])
        finally:
            self._sock.settimeout(before)
        self._left -= found
        return int(found)

    def fileno(self) -> int:
        return int(self._sock.fileno())

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
