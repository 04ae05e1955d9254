"""
Answers on their way to clients: what a client has not taken yet is kept, so that no thread waits for it.

A thread writes an answer and goes on to another request; the loop of `orderflow.web.worker` sends the rest,
as the client reads.
"""

from __future__ import annotations

import errno
import socket
from typing import Any

LARGEST_UNSENT = 4 * 1024 * 1024
"""Bytes of one answer that are kept. A thread waits with what is beyond; no page of ours is that large."""

READ_AT_ONCE = 64 * 1024


class BufferedSocket:
    """A client's socket whose `sendall` does not wait. It belongs to a thread or to the loop, never to both."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._unsent = bytearray()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def __len__(self) -> int:
        """Bytes that the client has not taken."""
        return len(self._unsent)

    def sendall(self, data: bytes) -> None:
        """
        Send what the client takes at once, and keep the rest for `send_on`.

        Raises:
            OSError: if the client is gone, or has taken nothing for the socket's time while too much is kept.
        """
        sent = 0 if self._unsent else self._send(data)
        self._unsent += memoryview(data)[sent:]
        while len(self._unsent) > LARGEST_UNSENT:
            try:
                del self._unsent[: self._socket.send(self._unsent)]
            except BlockingIOError:  # the time is over
                raise BrokenPipeError(errno.EPIPE, "the client does not read its answer") from None

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        """Send a file as `sendall` does. Static files are small."""
        file.seek(offset)
        left = count
        while part := file.read(READ_AT_ONCE if left is None else min(READ_AT_ONCE, left)):
            self.sendall(part)
            left = None if left is None else left - len(part)
        return int(file.tell() - offset)

    def send_on(self) -> bool:
        """
        Send what the client takes; return whether it takes anything.

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
