"""Procrastinate's application, and what all of its tasks need."""

from __future__ import annotations

import asyncio
import contextlib
import json
import string
from collections.abc import AsyncIterator, Mapping
from typing import Any

import procrastinate
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from benchmarks import environment, ledger
from benchmarks.procrastinate import sql

app = procrastinate.App(connector=procrastinate.PsycopgConnector())


@contextlib.asynccontextmanager
async def transaction() -> AsyncIterator[AsyncConnection]:
    """A session from the pool for one transaction; none is held during a provider call."""
    async with app.connector.pool.connection() as session:
        yield session


async def rows(session: AsyncConnection, statement: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Execute a statement and return its rows."""
    cursor = session.cursor(row_factory=dict_row)
    await cursor.execute(statement, values)
    return await cursor.fetchall()


async def answer(kind: str, key: str) -> None:
    """Call the provider, which responds after its time."""
    if environment.ANSWER_SECONDS:
        await asyncio.sleep(environment.ANSWER_SECONDS)
    ledger.note(kind, key)


def texts(order: Mapping[str, Any]) -> dict[str, str]:
    """The texts of the e-mail of an order: `subject`, `text` and `html`."""
    if not _templates:
        _templates.update(json.loads((environment.FOLDER / sql.TEXTS).read_text()))
    return {name: string.Template(text).substitute(order) for name, text in _templates.items()}


_templates: dict[str, str] = {}
