"""Choice of TCP ports on the loopback interface."""

import random
import socket
from collections.abc import Collection

LOOPBACK = "127.0.0.1"
# Below 32768, where Linux starts to assign ports to outgoing connections: one of those could take ours at any
# moment.
RANGE = range(20_000, 32_000)


def is_free(port: int) -> bool:
    """Return whether no process listens on this port, on the loopback address or on all addresses."""
    with socket.socket() as probe:
        # macOS allows binding a loopback port although a process listens on all addresses, so try to connect
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
    """Return the preferred port if it is free, otherwise a random free one that is not in `taken`."""
    if preferred is not None and preferred not in taken and is_free(preferred):
        return preferred
    while True:
        port = random.choice(RANGE)  # noqa: S311  # no secret
        if port not in taken and is_free(port):
            return port


def choose_upwards(first: int) -> int:
    """Return the first free port from `first` on: users expect 8001 if 8000 is taken."""
    return next((port for port in range(first, first + 100) if is_free(port)), None) or choose()
