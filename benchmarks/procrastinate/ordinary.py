"""A job for each step, which defers the next in its transaction, and the statements of the naive system."""

from __future__ import annotations

import uuid
from typing import Any

from psycopg import AsyncConnection

from benchmarks.procrastinate import sql
from benchmarks.procrastinate.app import answer, app, rows, texts, transaction


@app.task(name=sql.VALIDATE)
async def validate(order_id: str) -> None:
    """Check the order and reserve its items."""
    async with transaction() as session:
        [order] = await rows(session, sql.LOCKED_ORDER, {"order": order_id})
        lines = await rows(session, sql.LINES, {"order": order_id})
        assert sum(line["quantity"] * line["unit_price_minor"] for line in lines) == order["total_minor"]
        for line in lines:
            await session.execute(sql.RESERVE_ONE, line)
        await _move(session, order, "validated")
        await charge.configure(connection=session).defer_async(order_id=order_id)


@app.task(name="charge")
async def charge(order_id: str) -> None:
    """Charge the card."""
    await answer("charge", order_id)
    async with transaction() as session:
        [order] = await rows(session, sql.LOCKED_ORDER, {"order": order_id})
        await session.execute(sql.PAYMENT, {"order": order_id, "provider_id": f"ch_{order_id}"})
        await _move(session, order, "charged")
        await ship.configure(connection=session).defer_async(order_id=order_id)


@app.task(name="ship")
async def ship(order_id: str) -> None:
    """Have the warehouse send the parcel."""
    await answer("ship", order_id)
    async with transaction() as session:
        [order] = await rows(session, sql.LOCKED_ORDER, {"order": order_id})
        for line in await rows(session, sql.LINES, {"order": order_id}):
            await session.execute(sql.SHIP_ONE, line)
        await session.execute(sql.SHIPMENT, {"order": order_id, "provider_id": f"pa_{order_id}"})
        await _move(session, order, "fulfilled", statement=sql.FINISHED)
        await notify.configure(connection=session).defer_async(order_id=order_id)


@app.task(name="notify")
async def notify(order_id: str) -> None:
    """Write the e-mail, send it, and record that it is sent."""
    async with transaction() as session:
        [order] = await rows(session, sql.SHIPPED_ORDER, {"order": order_id})
        values = {"order": order_id, "message": uuid.uuid4(), **order, **texts(order)}
        [written] = await rows(session, sql.NOTIFICATION, values)
    await answer("mail", order["order_number"])
    async with transaction() as session:
        await session.execute(sql.SENT, written)


async def _move(
    session: AsyncConnection, order: dict[str, Any], to: str, *, statement: str = sql.STATUS
) -> None:
    values = {"order": order["id"], "from": order["status"], "to": to}
    await session.execute(sql.TRANSITION, values)
    await session.execute(statement, values)
