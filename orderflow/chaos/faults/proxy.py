"""
A small TCP proxy that disturbs connections as networks do: it refuses, cuts, hangs or delays them.

`python -m orderflow.chaos.faults.proxy --control PORT --route NAME=PORT:TARGET …` forwards each port to another
port of this machine. The control port takes one JSON object per line and answers each with one; see
`set_routes`. Disturbances can be combined: each is a property of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import socket
import sys
from collections.abc import Callable
from typing import Any

LOOPBACK = "127.0.0.1"
CHUNK = 65_536
PATIENCE = 5.0
"""Seconds to wait for the response of the control port."""


class Route:
    """
    A port that is forwarded to another port.

    `refuse` stops listening and resets all connections. `hang` accepts connections and forwards nothing: data
    sent meanwhile arrives late, as it does when a network recovers. `latency` (seconds) delays data to the
    target.
    """

    def __init__(self, name: str, *, port: int, target: int) -> None:
        self.name, self.port, self.target = name, port, target
        self.latency = 0.0
        self._moving = asyncio.Event()
        self._moving.set()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        """Listen."""
        if self._server is None:
            self._server = await asyncio.start_server(self._forward, LOOPBACK, self.port)

    async def close(self) -> None:
        """Stop listening, and reset all connections."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        self.cut()

    def cut(self) -> None:
        """Reset all connections; new ones are accepted."""
        for writer in list(self._open):
            _reset(writer)

    async def change(self, changes: dict[str, Any]) -> None:
        """
        Apply a command of the control port: `refuse` or `hang` (true or false), `latency` in seconds, `cut`.

        Raises:
            ValueError: if the command is unknown.
        """
        for name, value in changes.items():
            if name == "refuse":
                await (self.close() if value else self.open())
            elif name == "hang":
                self._moving.clear() if value else self._moving.set()
            elif name == "latency":
                self.latency = float(value)
            elif name == "cut":
                self.cut()
            else:
                raise ValueError(f"a route can refuse, hang, be cut and have latency, not {name!r}")

    def state(self) -> dict[str, Any]:
        """The current disturbances, and the number of connections."""
        return {
            "refuse": self._server is None,
            "hang": not self._moving.is_set(),
            "latency": self.latency,
            "connections": len(self._open),
        }

    async def _forward(self, near: asyncio.StreamReader, near_writer: asyncio.StreamWriter) -> None:
        self._open.add(near_writer)
        try:
            await self._moving.wait()
            far, far_writer = await asyncio.open_connection(LOOPBACK, self.target)
        except OSError:
            self._open.discard(near_writer)
            _reset(near_writer)
            return
        self._open.add(far_writer)
        try:
            directions = [
                asyncio.ensure_future(self._pump(near, far_writer, latency=lambda: self.latency)),
                asyncio.ensure_future(self._pump(far, near_writer, latency=lambda: 0.0)),
            ]
            _, left = await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            for direction in left:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)
        finally:
            for writer in (near_writer, far_writer):
                self._open.discard(writer)
                writer.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, latency: Callable[[], float]
    ) -> None:
        """
        Forward data in one direction. Each chunk is delayed on its own, so that latency costs no bandwidth.
        """
        held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        clock = asyncio.get_running_loop().time

        async def take() -> None:
            with contextlib.suppress(OSError):
                while data := await reader.read(CHUNK):
                    held.put_nowait((clock() + latency(), data))
            held.put_nowait((clock() + latency(), b""))

        taking = asyncio.ensure_future(take())
        try:
            while True:
                due, data = await held.get()
                await asyncio.sleep(max(0.0, due - clock()))
                await self._moving.wait()
                if not data:
                    return
                writer.write(data)
                await writer.drain()
        except OSError:
            return
        finally:
            taking.cancel()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Reset a connection, as the network of a dead machine does."""
    with contextlib.suppress(OSError, AttributeError):
        raw: socket.socket = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()


async def serve(routes: list[Route], *, control: int) -> None:
    """Forward all routes and serve the control port until the task is cancelled."""
    named = {route.name: route for route in routes}

    async def control_port(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                try:
                    for name, changes in json.loads(line).items():
                        await named[name].change(changes)
                    answer: dict[str, Any] = {name: route.state() for name, route in named.items()}
                except (ValueError, KeyError, AttributeError, TypeError) as error:
                    answer = {"error": f"{type(error).__name__}: {error}"}
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        writer.close()

    for route in routes:
        await route.open()
    async with await asyncio.start_server(control_port, LOOPBACK, control) as server:
        await server.serve_forever()


class InvalidCommand(Exception):
    """The control port did not understand the command."""


def set_routes(control: int, **routes: dict[str, Any]) -> dict[str, Any]:
    """
    Change the routes of the proxy at this control port; return their new states.

    Raises:
        OSError: if it does not answer.
        InvalidCommand: if the route or the change is unknown.
    """
    with socket.create_connection((LOOPBACK, control), timeout=PATIENCE) as connection:
        connection.sendall(json.dumps(routes).encode() + b"\n")
        with connection.makefile("rb") as file:
            answer: dict[str, Any] = json.loads(file.readline() or b'{"error": "no answer"}')
    if "error" in answer:
        raise InvalidCommand(str(answer["error"]))
    return answer


def _route(text: str) -> tuple[str, int, int]:
    name, _, ports = text.partition("=")
    port, _, target = ports.partition(":")
    return name, int(port), int(target)


def main() -> int:
    """Run as a process."""
    parser = argparse.ArgumentParser(prog="python -m orderflow.chaos.faults.proxy", description=__doc__)
    parser.add_argument("--control", type=int, required=True)
    parser.add_argument("--route", type=_route, action="append", required=True, metavar="NAME=PORT:TARGET")
    arguments = parser.parse_args()

    async def run() -> None:
        routes = [Route(name, port=port, target=target) for name, port, target in arguments.route]
        await serve(routes, control=arguments.control)

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
