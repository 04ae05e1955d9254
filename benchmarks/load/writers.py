"""
Placing orders in separate processes: `python -m benchmarks.load.writers KIND ORDERS WRITERS RATE`.

Prints one line of JSON: the total time, the median time of one order, and, if a rate is given, when each order
was committed.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
import uuid
from collections.abc import Callable

Place = Callable[[int], str]
"""Places the order with a number and returns its id."""


def main(words: list[str]) -> int:
    """Place the orders and print the report."""
    import django

    django.setup()

    from benchmarks.load.forks import together

    kind, orders, writers, rate = words[0], int(words[1]), int(words[2]), float(words[3])
    shares = [orders // writers + (number < orders % writers) for number in range(writers)]
    done = together(lambda number: _write(kind, shares[number], rate / writers), count=writers)
    placed = [line for lines in done.answers for line in lines]
    used = os.times()
    report = {
        "began": done.began,
        "seconds": done.seconds,
        "median_seconds": statistics.median(took for _, took, _ in placed),
        "cpu": used.children_user + used.children_system,
        "committed": {order: at for order, _, at in placed} if rate else {},
    }
    print(json.dumps(report))
    return 0


def placer(kind: str) -> Place:
    """
    Return the function that places orders: orderflow, naive, one of `sql.FIRST_JOBS`, or only (no following
    work, no key record).
    """
    from django.db import connection, transaction

    from benchmarks import tables
    from benchmarks.naive import placing
    from benchmarks.procrastinate import sql
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
        order, _ = placing.place_order(skus=skus(number), email="ada@example.com", name="Ada Example")
        return str(order.pk)

    def only(number: int) -> str:
        order, _ = placing.place_order_only(skus=skus(number), email="ada@example.com", name="Ada Example")
        return str(order.pk)

    def procrastinate(number: int) -> str:
        with transaction.atomic():
            order, _ = placing.write_order(skus=skus(number), email="ada@example.com", name="Ada Example")
            arguments = json.dumps({"order_id": str(order.pk)})
            with connection.cursor() as cursor:
                cursor.execute(sql.DEFER, {"task": sql.FIRST_JOBS[kind], "arguments": arguments})
        return str(order.pk)

    if kind in sql.FIRST_JOBS:  # its functions name their tables without the schema
        with connection.cursor() as cursor:
            cursor.execute(f"SET search_path TO public, {sql.SCHEMA}")
        return procrastinate
    return {"orderflow": orderflow, "naive": naive, "only": only}[kind]


def _write(kind: str, orders: int, rate: float) -> list[tuple[str, float, float]]:
    place, committed_at = placer(kind), _watch_commits()
    first, began, placed = os.getpid() * 100_000, time.time(), []
    for number in range(orders):
        if rate:
            time.sleep(max(0.0, began + number / rate - time.time()))
        before = time.perf_counter()
        order = place(first + number)
        placed.append((order, time.perf_counter() - before, committed_at()))
    return placed


def _watch_commits() -> Callable[[], float]:
    """Record when this process's session last committed: `on_commit` handlers run after that."""
    from django.db import connection

    commit, last = connection.commit, [0.0]

    def noting() -> None:
        commit()
        last[0] = time.time()

    connection.commit = noting  # type: ignore[method-assign]
    return lambda: last[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
