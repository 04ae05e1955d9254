"""A network that can be frozen: forwards connections to another address until it is stopped by a signal."""

from __future__ import annotations

import asyncio
import sys


async def main(port, host, target):
    async def pump(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def forward(reader, writer):
        far_reader, far_writer = await asyncio.open_connection(host, int(target))
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer), return_exceptions=True)

    async with await asyncio.start_server(forward, "127.0.0.1", int(port)) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
