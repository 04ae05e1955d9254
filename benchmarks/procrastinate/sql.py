"""The statements of the baseline with procrastinate. Needs nothing but the standard library."""

from __future__ import annotations

SCHEMA = "procrastinate"
"""The schema of procrastinate's own tables, apart from the project's."""

VALIDATE, ALL_STEPS = "validate", "all_steps"
FIRST_JOBS = {"procrastinate": VALIDATE, "procrastinate tuned": ALL_STEPS}
"""The first job of an order by the kind of its writer: its first step, which defers the next, or all steps."""

TEXTS = "texts.json"
"""The e-mail's texts, rendered from the project's templates with placeholders."""

DEFER = """
SELECT procrastinate_defer_jobs_v1(ARRAY[
    ROW('default', %(task)s, 0, NULL, NULL, %(arguments)s::jsonb, NULL)::procrastinate_job_to_defer_v1
])
"""
"""What procrastinate's own `defer` sends, without a lock: jobs may run in any order."""

# The ordinary tasks: a statement for each row that changes.

LOCKED_ORDER = "SELECT * FROM orders_order WHERE id = %(order)s FOR UPDATE"
LINES = "SELECT * FROM orders_orderline WHERE order_id = %(order)s ORDER BY product_id"
RESERVE_ONE = """
UPDATE orders_product SET on_hand = on_hand - %(quantity)s, reserved = reserved + %(quantity)s
WHERE id = %(product_id)s
"""
SHIP_ONE = """
UPDATE orders_product SET reserved = reserved - %(quantity)s, shipped = shipped + %(quantity)s
WHERE id = %(product_id)s
"""
TRANSITION = """
INSERT INTO orders_ordertransition (order_id, from_status, to_status, task, actor, note)
VALUES (%(order)s, %(from)s, %(to)s, '', '', '')
"""
STATUS = "UPDATE orders_order SET status = %(to)s WHERE id = %(order)s"
FINISHED = "UPDATE orders_order SET status = %(to)s, due_at = NULL, finished_at = now() WHERE id = %(order)s"

# The tuned task: a statement for each change.

ORDER_AND_SUM = """
SELECT o.total_minor, (SELECT sum(quantity * unit_price_minor) FROM orders_orderline WHERE order_id = o.id)
FROM orders_order AS o WHERE o.id = %(order)s FOR UPDATE
"""

_LOCKED = """
WITH locked AS (
    SELECT product.id, line.quantity
    FROM orders_product AS product JOIN orders_orderline AS line ON line.product_id = product.id
    WHERE line.order_id = %(order)s ORDER BY product.id FOR UPDATE OF product
)
UPDATE orders_product AS product SET {changes} FROM locked WHERE product.id = locked.id
"""

RESERVE = _LOCKED.format(changes="on_hand = on_hand - locked.quantity, reserved = reserved + locked.quantity")
SHIP = _LOCKED.format(changes="reserved = reserved - locked.quantity, shipped = shipped + locked.quantity")

_MOVE = """
WITH moved AS (
    UPDATE orders_order SET status = %(to)s{more} WHERE id = %(order)s AND status = %(from)s RETURNING id
)
INSERT INTO orders_ordertransition (order_id, from_status, to_status, task, actor, note)
SELECT id, %(from)s, %(to)s, '', '', '' FROM moved
"""

MOVE = _MOVE.format(more="")
FINISH = _MOVE.format(more=", due_at = NULL, finished_at = now()")

# Both.

PAYMENT = """
INSERT INTO orders_payment
    (order_id, idempotency_key, amount_minor, currency, status, provider_id, decline_code, calls, error,
     resolved_at)
SELECT id, 'order-' || id || '-charge', total_minor, currency, 'succeeded', %(provider_id)s, '', 1, '', now()
FROM orders_order WHERE id = %(order)s
"""

SHIPMENT = """
INSERT INTO orders_shipment
    (order_id, idempotency_key, status, provider_id, carrier, tracking_number, error, resolved_at)
SELECT id, 'order-' || id || '-shipment', 'shipped', %(provider_id)s, 'Stub Parcel', number, '', now()
FROM orders_order WHERE id = %(order)s
"""

SHIPPED_ORDER = """
SELECT o.number AS order_number, o.customer_name, o.customer_email, s.carrier, s.tracking_number
FROM orders_order AS o JOIN orders_shipment AS s ON s.order_id = o.id WHERE o.id = %(order)s
"""

NOTIFICATION = """
INSERT INTO notifications_notification
    (message_id, order_id, order_number, channel, template, recipient, status, version, outcome_open,
     provider_message_id, subject, text, html, attempts, error)
VALUES (%(message)s, %(order)s, %(order_number)s, 'email', 'fulfilled', %(customer_email)s, 'pending', 0, false,
        '', %(subject)s, %(text)s, %(html)s, 0, '')
RETURNING id
"""

SENT = "UPDATE notifications_notification SET status = 'sent', sent_at = now() WHERE id = %(id)s"
