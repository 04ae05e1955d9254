"""Choosing TCP ports on the loopback interface."""

import random
import socket
from collections.abc import Collection

LOOPBACK = "127.0.0.1"
# Below 32768, where Linux begins to hand out ports to outgoing connections: one of those could take ours at
# any moment.
RANGE = range(20_000, 32_000)


def is_free(port: int) -> bool:
    """Tell whether nobody listens on this port, on the loopback address or on all of them."""
    with socket.socket() as probe:
        # macOS lets a loopback port be bound although someone listens on all addresses, so ask by connecting
        # first.
        probe.settimeout(0.5)
        if probe.connect_ex((LOOPBACK, port)) == 0:
            return False
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def choose(*, preferred: int | None = None, taken: Collection[int] = ()) -> int:
    """Return the preferred port when it is free, else a random free one that is not among `taken`."""
    if preferred is not None and preferred not in taken and is_free(preferred):
        return preferred
    while True:
        port = random.choice(RANGE)  # noqa: S311  # no secret
        if port not in taken and is_free(port):
            return port


def choose_upwards(first: int) -> int:
    """Return the first free port from `first` on: people expect 8001 when 8000 is taken."""
    return next((port for port in range(first, first + 100) if is_free(port)), None) or choose()
