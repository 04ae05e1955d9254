"""
As little as such a program can do: all steps of an order as one job, and each change as one statement.

A retry begins with the first step again.
"""

from __future__ import annotations

from benchmarks.procrastinate import sql
from benchmarks.procrastinate.app import answer, app, rows, transaction
from benchmarks.procrastinate.ordinary import notify


@app.task(name=sql.ALL_STEPS)
async def all_steps(order_id: str) -> None:
    """Validate, charge and ship."""
    key = {"order": order_id}
    async with transaction() as session:
        [order] = await rows(session, sql.ORDER_AND_SUM, key)
        assert order["total_minor"] == order["sum"]
        await session.execute(sql.RESERVE, key)
        await session.execute(sql.MOVE, {**key, "from": "placed", "to": "validated"})
    await answer("charge", order_id)
    async with transaction() as session:
        await session.execute(sql.PAYMENT, {**key, "provider_id": f"ch_{order_id}"})
        await session.execute(sql.MOVE, {**key, "from": "validated", "to": "charged"})
    await answer("ship", order_id)
    async with transaction() as session:
        await session.execute(sql.SHIP, key)
        await session.execute(sql.SHIPMENT, {**key, "provider_id": f"pa_{order_id}"})
        await session.execute(sql.FINISH, {**key, "from": "charged", "to": "fulfilled"})
        await notify.configure(connection=session).defer_async(order_id=order_id)
