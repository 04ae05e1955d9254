"""
Responses on their way to clients: data that a client has not read yet is buffered, so that no thread waits.

A thread writes a response and continues with another request; the loop of `orderflow.web.worker` sends the rest
as the client reads.
"""

from __future__ import annotations

import errno
import socket
from typing import Any

LARGEST_UNSENT = 4 * 1024 * 1024
"""
Bytes of a response that are buffered. A thread waits with more than that; none of our pages is that large.
"""

READ_AT_ONCE = 64 * 1024


class BufferedSocket:
    """A client's socket whose `sendall` does not wait. Only one of thread and loop uses it at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._unsent = bytearray()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def __len__(self) -> int:
        """The number of bytes that the client has not read."""
        return len(self._unsent)

    def sendall(self, data: bytes) -> None:
        """
        Send what the client accepts at once, and buffer the rest for `send_on`.

        Raises:
            OSError: if the client is gone, or has read nothing within the timeout while too much is buffered.
        """
        sent = 0 if self._unsent else self._send(data)
        self._unsent += memoryview(data)[sent:]
        while len(self._unsent) > LARGEST_UNSENT:
            try:
                del self._unsent[: self._socket.send(self._unsent)]
            except BlockingIOError:  # timed out
                raise BrokenPipeError(errno.EPIPE, "the client does not read its response") from None

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        """Send a file with `sendall`. Static files are small."""
        file.seek(offset)
        left = count
        while part := file.read(READ_AT_ONCE if left is None else min(READ_AT_ONCE, left)):
            self.sendall(part)
            left = None if left is None else left - len(part)
        return int(file.tell() - offset)

    def send_on(self) -> bool:
        """
        Send what the client accepts; return whether it accepts anything.

        Raises:
            OSError: if the client is gone.
        """
        sent = self._send(self._unsent)
        del self._unsent[:sent]
        return sent > 0

    def _send(self, data: bytes | bytearray) -> int:
        try:
            return self._socket.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
