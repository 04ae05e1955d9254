"""
A network that fails: it forwards connections to another address until a signal stops or kills it.

After SIGUSR1 existing connections stay open but carry nothing; new ones work.
"""

from __future__ import annotations

import asyncio
import signal
import sys


async def main(port, host, target):
    silent = asyncio.Event()

    def fall_silent():
        nonlocal silent
        silent.set()
        silent = asyncio.Event()  # for later connections

    async def pump(reader, writer, silenced):
        while data := await reader.read(65536):
            if silenced.is_set():
                await asyncio.Event().wait()
            writer.write(data)
            await writer.drain()
        if silenced.is_set():
            await asyncio.Event().wait()
        writer.close()

    async def forward(reader, writer):
        silenced = silent
        far_reader, far_writer = await asyncio.open_connection(host, int(target))
        ways = pump(reader, far_writer, silenced), pump(far_reader, writer, silenced)
        await asyncio.gather(*ways, return_exceptions=True)

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, fall_silent)
    async with await asyncio.start_server(forward, "127.0.0.1", int(port)) as server:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
