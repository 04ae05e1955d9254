"""
The worker: `python -m benchmarks.procrastinate.worker JOBS [tuned] [once]`, with the Python of `venv`.

Without Django, as such a program would be written. JOBS is how many it has in flight, or `schema` to make its
tables; `tuned` leaves its sessions unchecked; `once` ends it when there are no more jobs.
"""

from __future__ import annotations

import asyncio
import logging
import sys

from psycopg_pool import AsyncConnectionPool

from benchmarks import environment
from benchmarks.procrastinate import ordinary, sql, tuned
from benchmarks.procrastinate.app import app

SESSIONS = 8
"""The most that its pool opens, for jobs and their administration; more were no faster."""

TASKS = (ordinary, tuned)


async def main(words: list[str]) -> None:
    """Run jobs until the process is stopped."""
    # Procrastinate's own pool checks every session that it hands out, at the cost of a round trip.
    check = None if "tuned" in words else AsyncConnectionPool.check_connection
    options = {"options": f"-c search_path={sql.SCHEMA},public"}
    pool = AsyncConnectionPool(
        environment.DATABASE_URL, min_size=1, max_size=SESSIONS, kwargs=options, check=check, open=False
    )
    async with pool, app.open_async(pool):
        if words[0] == "schema":
            await app.schema_manager.apply_schema_async()
            return
        await app.run_worker_async(
            concurrency=int(words[0]), wait="once" not in words, shutdown_graceful_timeout=5
        )


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(main(sys.argv[1:]))
