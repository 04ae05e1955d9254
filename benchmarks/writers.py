"""
Placing orders from processes of their own: `python -m benchmarks.writers KIND ORDERS WRITERS RATE`.

Prints one line of JSON: how long it took, the median time of one order, and when each was committed.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import sys
import time
import uuid
from collections.abc import Callable
from typing import Any

Place = Callable[[int], str]
"""Places the order of a number and returns its id."""


def main(words: list[str]) -> int:
    """Place the orders and report."""
    import django

    django.setup()
    kind, orders, writers, rate = words[0], int(words[1]), int(words[2]), float(words[3])
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(writers + 1), context.SimpleQueue()
    shares = [orders // writers + (number < orders % writers) for number in range(writers)]
    workers = [
        context.Process(target=_write, args=(kind, share, rate / writers, barrier, answers), daemon=True)
        for share in shares
    ]
    for worker in workers:
        worker.start()
    barrier.wait(60)
    began = time.time()
    placed = [line for _ in workers for line in answers.get()]
    ended = time.time()
    for worker in workers:
        worker.join()
    if len(placed) != orders:
        raise SystemExit(f"{len(placed)} of {orders} orders were placed")
    used = os.times()
    print(
        json.dumps(
            {
                "began": began,
                "seconds": ended - began,
                "median_seconds": statistics.median(took for _, took, _ in placed),
                "cpu": used.children_user + used.children_system,
                "committed": {order: at for order, _, at in placed} if rate else {},
            }
        )
    )
    return 0


def placer(kind: str) -> Place:
    """How orders of this kind are placed: orderflow, naive, or only (no work to follow, no record of a key)."""
    from benchmarks import tables
    from benchmarks.naive import placing
    from orders import services

    run = uuid.uuid4().hex

    def skus(number: int) -> list[str]:
        return [tables.sku(7 * number), tables.sku(7 * number + 3)]

    def orderflow(number: int) -> str:
        key = services.IdempotencyKey.of(scope="bench", key=f"{run}-{number}", request={"number": number})
        placed = services.place_order(
            items=[services.Item(sku=sku, quantity=1) for sku in skus(number)],
            currency="GBP",
            payment_method="pm_card_visa",
            contact=services.Contact(name="Ada Example", email="ada@example.com"),
            country="GB",
            idempotency=key,
        )
        return str(placed.order.pk)

    def naive(number: int) -> str:
        return str(placing.place_order(skus=skus(number), email="ada@example.com", name="Ada Example").pk)

    def only(number: int) -> str:
        return str(placing.place_order_only(skus=skus(number), email="ada@example.com", name="Ada Example").pk)

    return {"orderflow": orderflow, "naive": naive, "only": only}[kind]


def _write(kind: str, orders: int, rate: float, barrier: Any, answers: Any) -> None:
    place = placer(kind)
    first = os.getpid() * 100_000
    _open_session()
    barrier.wait(60)
    placed, began = [], time.time()
    for number in range(orders):
        if rate:
            time.sleep(max(0.0, began + number / rate - time.time()))
        before = time.perf_counter()
        order = place(first + number)
        placed.append((order, time.perf_counter() - before, time.time()))
    answers.put(placed)


def _open_session() -> None:
    from django.db import connection

    connection.ensure_connection()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
