"""Shipments, and the stock for them."""

from __future__ import annotations

from orders import moves
from orders.invariants import repairs
from orders.invariants.patience import READ, RECENT, TRACE
from outbox.verification.catalogue import Invariant

INVARIANTS = [
    Invariant(
        name="fulfilled-orders-are-shipped",
        sentence="An order is fulfilled exactly when its shipment is shipped.",
        sql=f"""
            SELECT o.number FROM orders_order AS o
            LEFT JOIN orders_shipment AS shipment ON shipment.order_id = o.id
            WHERE (o.status = 'fulfilled') <> (coalesce(shipment.status, '') = 'shipped') AND {RECENT}
        """,  # noqa: S608 - names of our own
        command=TRACE,
    ),
    Invariant(
        name="refused-shipments-are-compensated",
        sentence="An order whose shipment was refused is being cancelled or is cancelled.",
        sql=f"""
            SELECT o.number FROM orders_order AS o
            JOIN orders_shipment AS shipment ON shipment.order_id = o.id
            WHERE shipment.status = 'refused' AND o.status NOT IN ('cancelling', 'cancelled') AND {RECENT}
        """,  # noqa: S608 - names of our own
        command=TRACE,
    ),
    Invariant(
        name="stock-adds-up",
        sentence="For every product, stock on hand, reserved and shipped add up to what was received.",
        sql="""
            SELECT sku FROM orders_product WHERE on_hand + reserved + shipped <> received
        """,
        command=READ,
    ),
    Invariant(
        name="reservations-are-held",
        sentence="For every product, the reserved stock equals what unfinished, validated orders hold.",
        sql="""
            SELECT product.sku FROM orders_product AS product
            LEFT JOIN (
                SELECT line.product_id, sum(line.quantity) AS quantity
                FROM orders_order AS o JOIN orders_orderline AS line ON line.order_id = o.id
                WHERE o.status = ANY(%(holding)s)
                GROUP BY line.product_id
            ) AS held ON held.product_id = product.id
            WHERE product.reserved <> coalesce(held.quantity, 0)
        """,
        values=lambda: {"holding": [str(status) for status in moves.HOLDING_STOCK]},
        command="python manage.py verify --repair",
        repair=repairs.RELEASE_STOCK,
    ),
    Invariant(
        name="shipped-stock-left",
        sentence="For every product, the shipped stock equals what fulfilled orders contain.",
        sql="""
            SELECT product.sku FROM orders_product AS product
            LEFT JOIN (
                SELECT line.product_id, sum(line.quantity) AS quantity
                FROM orders_order AS o JOIN orders_orderline AS line ON line.order_id = o.id
                WHERE o.status = 'fulfilled'
                GROUP BY line.product_id
            ) AS sent ON sent.product_id = product.id
            WHERE product.shipped <> coalesce(sent.quantity, 0)
              AND (NOT %(is_partial)s OR product.id IN (
                  SELECT line.product_id
                  FROM orders_orderline AS line JOIN orders_order AS o ON o.id = line.order_id
                  WHERE o.finished_at >= %(since)s
              ))
        """,
        command=READ,
    ),
]
