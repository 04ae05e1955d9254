"""
A small TCP proxy that can do to connections what networks do: pass, refuse, cut, hang, delay.

`python -m orderflow.chaos.faults.proxy --control PORT --route NAME=PORT:TARGET …` forwards each port to another
port of this machine. The control port takes one JSON object per line and answers each with one; see `tell`.
Disturbances can be combined: each is a property of its own.
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
"""Seconds to wait for an answer of the control port."""


class Route:
    """
    One port that leads to another.

    `refuse` closes the door and resets what is connected. `hang` lets everybody in and moves nothing: what was
    sent meanwhile arrives late, as it does in a network that heals. `latency` (seconds) holds back what goes to
    the target.
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
        """Stop listening, and reset what is connected."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        self.cut()

    def cut(self) -> None:
        """Reset what is connected; new connections are welcome."""
        for writer in list(self._open):
            _reset(writer)

    async def change(self, planned: dict[str, Any]) -> None:
        """
        Take a wish of the control port: `refuse` or `hang` (true or false), `latency` in seconds, `cut`.

        Raises:
            ValueError: if it wishes for something else.
        """
        for name, value in planned.items():
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

    def picture(self) -> dict[str, Any]:
        """What it is like now."""
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
        """Move bytes one way. Each chunk is held back for itself, so that latency costs no bandwidth."""
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
    """Close a connection the rude way, as a dead machine's network does."""
    with contextlib.suppress(OSError, AttributeError):
        raw: socket.socket = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()


async def serve(routes: list[Route], *, control: int) -> None:
    """Forward all routes and obey the control port until the task is cancelled."""
    named = {route.name: route for route in routes}

    async def obey(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                try:
                    for name, planned in json.loads(line).items():
                        await named[name].change(planned)
                    answer: dict[str, Any] = {name: route.picture() for name, route in named.items()}
                except (ValueError, KeyError, AttributeError, TypeError) as unclear:
                    answer = {"error": f"{type(unclear).__name__}: {unclear}"}
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        writer.close()

    for route in routes:
        await route.open()
    async with await asyncio.start_server(obey, LOOPBACK, control) as server:
        await server.serve_forever()


class Unclear(Exception):
    """The control port did not understand."""


def tell(control: int, **planned_orders: dict[str, Any]) -> dict[str, Any]:
    """
    Tell the proxy at this control port what its routes should be like; return what they are like.

    Raises:
        OSError: if it does not answer.
        Unclear: if it knows no such route or no such wish.
    """
    with socket.create_connection((LOOPBACK, control), timeout=PATIENCE) as connection:
        connection.sendall(json.dumps(planned_orders).encode() + b"\n")
        with connection.makefile("rb") as file:
            answer: dict[str, Any] = json.loads(file.readline() or b'{"error": "no answer"}')
    if "error" in answer:
        raise Unclear(str(answer["error"]))
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
    given = parser.parse_args()

    async def run() -> None:
        routes = [Route(name, port=port, target=target) for name, port, target in given.route]
        await serve(routes, control=given.control)

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
