"""
Counts on their way from a child process to its main process: one datagram for each signal.

The main process makes a pair of connected sockets before it forks, keeps one end and leaves the other to its
children. What a child has sent is in the kernel, so it survives the child. A child never waits: if the socket
is full because the main process does not read, the signal is lost, and the next datagram says how many were.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Sequence

from orderflow.observability.counting import Count

BUFFER = 1 << 20
"""Bytes that are asked for, for datagrams that wait. Linux grants twice as much, but no more than twice
`net.core.wmem_max`, and counts 768 bytes for each: 2,700 signals, or 550 with its default of 208 KB. The main
process usually reads them within a millisecond."""

LARGEST = 4096
"""Bytes of a datagram; a signal's counts take about 150."""

FIELD, RECORD = "\x1f", "\x1e"
"""The separators of ASCII. No label contains them: all labels are names of ours."""


class Unreadable(Exception):
    """A datagram is none that `Sender` makes."""


class Channel:
    """The two ends: `receiver` belongs to the main process, `sender` to its children."""

    def __init__(self) -> None:
        self.receiver, self.sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sender.setblocking(False)
        with contextlib.suppress(OSError):
            self.sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)

    def receive(self) -> tuple[int, list[Count]]:
        """
        Wait for the next datagram; return how many signals were lost before it, and its counts.

        Raises:
            OSError: if the channel is closed.
            Unreadable: if the datagram cannot be read.
        """
        return decoded(self.receiver.recv(LARGEST))

    def for_child(self) -> Sender:
        """Return the sender of a child process that was just forked, which never receives."""
        self.receiver.close()
        return Sender(self.sender)

    def close(self) -> None:
        """Close both ends."""
        self.receiver.close()
        self.sender.close()


class Sender:
    """Sends counts without ever waiting."""

    def __init__(self, sender: socket.socket) -> None:
        self._sender = sender
        self._guard = threading.Lock()
        self.lost = 0
        """Signals that could not be handed over and are not reported yet."""

    def send(self, counts: Sequence[Count]) -> None:
        """Send the counts of one signal, or note that it is lost."""
        with self._guard:
            try:
                self._sender.send(encoded(self.lost, counts))
            except OSError:  # it is full, or the main process has ended
                self.lost += 1
            else:
                self.lost = 0


def encoded(lost: int, counts: Sequence[Count]) -> bytes:
    """Return the datagram with these counts, after so many lost ones."""
    records = (FIELD.join((metric, repr(value), *labels)) for metric, labels, value in counts)
    return RECORD.join((str(lost), *records)).encode()


def decoded(datagram: bytes) -> tuple[int, list[Count]]:
    """
    Read a datagram.

    Raises:
        Unreadable: if it has another form.
    """
    try:
        lost, *records = datagram.decode().split(RECORD)
        fields = (record.split(FIELD) for record in records)
        return int(lost), [Count(metric, tuple(labels), float(value)) for metric, value, *labels in fields]
    except ValueError as error:
        raise Unreadable(f"{len(datagram)} bytes are no counts") from error
