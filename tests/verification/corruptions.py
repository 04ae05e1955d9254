"""
One way to break each promise, and no other: SQL by the name of the invariant.

`%(shipped)s` and the like are the ids of the orders of the clean world. What the database forbids
is allowed first, in the test's own transaction.
"""

from __future__ import annotations

import psycopg
from django.db import connection

from outbox import models

PLACED = "event_name = 'orders.order_placed'"
COPIED = (
    "event_name, event_version, key, payload, correlation_id, causation_id, trace, created_at, status, "
    "not_before, workflows, redeliveries, attempts, last_error, published_at"
)
ALLOW_CHANGES_OF_THE_PAST = "ALTER TABLE orders_ordertransition DISABLE TRIGGER USER;"

IN_THE_OUTBOX = {
    "periodic-tasks-are-done": """
        UPDATE outbox_periodicrun SET last_ended_at = now() - interval '63 seconds'
        WHERE name = 'orders.tasks.sweep'
    """,
    "messages-move-on": """
        UPDATE outbox_outboxmessage SET not_before = now() - interval '1 hour' WHERE key = %(waiting)s
    """,
    "postponed-messages-say-why": """
        UPDATE outbox_outboxmessage SET not_before = now() + interval '1 hour', redeliveries = 1
        WHERE key = %(waiting)s
    """,
    "claims-end": """
        UPDATE outbox_outboxmessage SET not_before = now() + interval '1 hour', claim = gen_random_uuid()
        WHERE key = %(waiting)s
    """,
    "lost-deliveries-are-resumed": """
        INSERT INTO outbox_delivery (message_id, workflow, generation, status, queue, sent_at)
        SELECT id, 'tests.workflow', 0, 'sent', 'orders', now() - interval '20 minutes'
        FROM outbox_outboxmessage WHERE key = %(plain)s LIMIT 1;
        UPDATE outbox_outboxmessage SET published_at = now() - interval '20 minutes' WHERE key = %(plain)s;
        INSERT INTO outbox_queueprobe (queue, sent_at, returned_at)
        VALUES ('orders', now() - interval '15 minutes', now() - interval '10 minutes')
    """,
    "deliveries-are-of-delivered-messages": """
        INSERT INTO outbox_delivery (message_id, workflow, generation, status)
        VALUES (%(unknown)s, 'tests.workflow', 0, 'sent')
    """,
    "one-copy-is-outstanding": """
        INSERT INTO outbox_delivery (message_id, workflow, generation, status)
        SELECT id, 'tests.workflow', 99, 'sent' FROM outbox_outboxmessage WHERE key = %(plain)s LIMIT 1
    """,
    "settled-messages-say-how": """
        UPDATE outbox_outboxmessage SET published_at = NULL WHERE key = %(plain)s
    """,
    "buried-messages-have-letters": """
        UPDATE outbox_outboxmessage SET status = 'buried', last_error = 'why'
        WHERE key = %(plain)s AND event_name = 'orders.order_fulfilled'
    """,
    "attempts-are-sane": """
        UPDATE outbox_attempt SET next_try_at = now() WHERE outcome = 'buried'
    """,
    "given-up-work-has-letters": """
        INSERT INTO outbox_attempt (consumer, message_id, outcome, worker, error_class, error, traceback)
        SELECT 'orders.tasks.fulfill', id, 'buried', '', 'X', 'x', '' FROM outbox_outboxmessage
        WHERE key = %(plain)s LIMIT 1
    """,
    "open-letters-can-be-replayed": """
        UPDATE outbox_deadletter SET message_id = %(unknown)s, source = 'worker', consumer = 'x'
        WHERE key = %(stuck)s;
        DELETE FROM outbox_attempt WHERE consumer = 'orders.tasks.charge'
    """,
    "open-letters-keep-their-attempts": """
        DELETE FROM outbox_attempt WHERE consumer = 'orders.tasks.charge'
    """,
    "resolved-letters-say-who-and-why": """
        UPDATE outbox_deadletter
        SET resolution = 'recovered', resolved_by = 'x', reason = '', resolved_at = now()
        WHERE key = %(bounced)s
    """,
    "replayed-letters-were-delivered": """
        UPDATE outbox_outboxmessage SET redeliveries = 0
        WHERE key = %(bounced)s AND event_name = 'orders.order_placed';
        UPDATE outbox_deadletter
        SET resolution = 'recovered', resolved_by = 'x', reason = 'x', resolved_at = now()
        WHERE key = %(bounced)s
    """,
    "replays-end-with-their-dead-letter": """
        UPDATE outbox_replay SET outcome = 'under_way', ended_at = NULL
    """,
    "ended-work-stays-ended": """
        UPDATE outbox_deadletter
        SET resolution = 'discarded', resolved_by = 'x', reason = 'x', resolved_at = now() - interval '1 hour'
        WHERE key = %(bounced)s
    """,
    "inbox-knows-its-messages": """
        UPDATE outbox_inboxentry SET message_id = %(unknown)s
    """,
    "causes-are-known": """
        UPDATE outbox_outboxmessage SET causation_id = %(unknown)s
        WHERE key = %(plain)s AND event_name = 'orders.order_fulfilled'
    """,
    "tasks-have-their-messages": """
        INSERT INTO outbox_enqueuedtask
            (message_id, task, args, kwargs, backend, queue_name, priority, status, worker_ids, errors)
        VALUES (%(unknown)s, 'tests.task', '[]', '{}', 'default', 'default', 0, 'READY', '{}', '[]')
    """,
}

IN_ORDERS = {
    "orders-were-published": f"""
        UPDATE outbox_outboxmessage SET event_name = 'another' WHERE key = %(plain)s AND {PLACED}
    """,
    "no-event-was-published-twice": f"""
        INSERT INTO outbox_outboxmessage (id, {COPIED}) SELECT gen_random_uuid(), {COPIED}
        FROM outbox_outboxmessage WHERE key = %(plain)s AND event_name = 'orders.order_fulfilled'
    """,
    "messages-belong-to-orders": f"""
        INSERT INTO outbox_outboxmessage (id, {COPIED}) SELECT gen_random_uuid(), {COPIED}
        FROM outbox_outboxmessage WHERE key = %(plain)s AND {PLACED};
        UPDATE outbox_outboxmessage AS message SET key = gen_random_uuid()::text
        WHERE key = %(plain)s AND {PLACED} AND id <> (
            SELECT message_id FROM orders_order WHERE id = message.key::uuid)
    """,
    "unfinished-orders-go-on": """
        UPDATE orders_order SET due_at = now() - interval '1 hour' WHERE id = %(waiting)s;
        UPDATE outbox_outboxmessage SET status = 'published', published_at = now() WHERE key = %(waiting)s
    """,
    "unfinished-orders-keep-their-message": """
        UPDATE orders_order SET message_id = %(unknown)s WHERE id = %(waiting)s
    """,
    "given-up-orders-are-cancelled": """
        UPDATE outbox_deadletter
        SET resolution = 'discarded', resolved_by = 'x', reason = 'x', resolved_at = now()
        WHERE key = %(stuck)s
    """,
    "started-orders-move": """
        UPDATE orders_order SET resumptions = 12 WHERE id = %(waiting)s;
        UPDATE outbox_outboxmessage SET status = 'published', published_at = now() - interval '2 minutes'
        WHERE key = %(waiting)s
    """,
    "ended-orders-said-so": """
        UPDATE outbox_outboxmessage SET event_name = 'another'
        WHERE key = %(plain)s AND event_name = 'orders.order_fulfilled'
    """,
    "cancellations-were-published": """
        UPDATE orders_order SET cancel_requested_at = now() WHERE id = %(plain)s
    """,
    "refunds-were-published": """
        UPDATE outbox_outboxmessage SET event_name = 'another'
        WHERE key = %(cancelled)s AND event_name = 'orders.order_refunded'
    """,
    "history-is-unbroken": """
        DELETE FROM orders_ordertransition WHERE order_id = %(plain)s AND to_status = 'validated'
    """,
    "moves-were-legal": f"""
        {ALLOW_CHANGES_OF_THE_PAST}
        DELETE FROM orders_ordertransition WHERE order_id = %(plain)s AND to_status = 'charged';
        UPDATE orders_ordertransition SET from_status = 'validated'
        WHERE order_id = %(plain)s AND to_status = 'fulfilled'
    """,
    "leases-are-short": """
        UPDATE orders_order SET lease_until = now() + interval '1 hour' WHERE id = %(waiting)s
    """,
    "orders-remember-their-key": """
        DELETE FROM orders_idempotencyrecord WHERE order_id = %(plain)s
    """,
    "orders-have-their-client": """
        INSERT INTO orders_apiclient (name) VALUES ('another');
        UPDATE orders_order SET client_id = (SELECT id FROM orders_apiclient) WHERE id = %(plain)s
    """,
    "totals-are-sums": """
        UPDATE orders_orderline SET unit_price_minor = unit_price_minor + 1 WHERE order_id = %(plain)s
    """,
    "orders-are-charged-once": """
        UPDATE orders_payment SET amount_minor = amount_minor + 1 WHERE order_id = %(plain)s
    """,
    "shipped-orders-are-charged": """
        UPDATE orders_payment SET status = 'declined' WHERE order_id = %(plain)s
    """,
    "cancelled-orders-are-refunded": """
        UPDATE orders_order SET finished_at = now() - interval '1 hour' WHERE id = %(cancelled)s;
        UPDATE orders_refund SET status = 'requested'
    """,
    "rejected-orders-are-not-charged": """
        UPDATE orders_order SET finished_at = now() - interval '1 hour' WHERE id = %(rejected)s;
        UPDATE orders_payment SET status = 'succeeded', provider_id = 'pi_x' WHERE order_id = %(rejected)s
    """,
    "refunds-are-of-charges": """
        UPDATE orders_refund SET amount_minor = amount_minor + 1
    """,
    "ended-orders-have-no-open-payment": """
        UPDATE orders_payment SET status = 'unknown' WHERE order_id = %(rejected)s
    """,
    "effects-name-their-record": """
        UPDATE orders_shipment SET provider_id = '' WHERE order_id = %(plain)s
    """,
    "fulfilled-orders-are-shipped": """
        UPDATE orders_shipment SET status = 'requested' WHERE order_id = %(plain)s
    """,
    "refused-shipments-are-compensated": """
        UPDATE orders_shipment SET order_id = %(rejected)s WHERE order_id = %(cancelled)s
    """,
    "stock-adds-up": """
        ALTER TABLE orders_product DROP CONSTRAINT stock_adds_up;
        UPDATE orders_product SET received = received + 1 WHERE sku = 'PLAIN'
    """,
    "reservations-are-held": """
        UPDATE orders_product SET reserved = reserved + 1, on_hand = on_hand - 1 WHERE sku = 'PLAIN'
    """,
    "shipped-stock-left": """
        UPDATE orders_product SET shipped = shipped + 1, on_hand = on_hand - 1 WHERE sku = 'PLAIN'
    """,
}

LONG_PUBLISHED = f"""
    UPDATE outbox_outboxmessage SET published_at = now() - interval '1 hour'
    WHERE key = %(shipped)s AND {PLACED};
"""
SENT_BY_SMS = "order_id = %(shipped)s AND template = 'placed' AND channel = 'sms'"

IN_NOTIFICATIONS = {
    "customers-are-told": f"""
        {LONG_PUBLISHED} DELETE FROM notifications_notification WHERE {SENT_BY_SMS}
    """,
    "notifications-come-to-an-end": f"""
        {LONG_PUBLISHED}
        UPDATE notifications_notification SET status = 'pending', sent_at = NULL WHERE {SENT_BY_SMS}
    """,
    "customers-are-told-once": f"""
        ALTER TABLE notifications_notification DROP CONSTRAINT one_notification_per_recipient;
        UPDATE notifications_notification AS notification SET message_id = placed.message_id
        FROM notifications_notification AS placed
        WHERE notification.order_id = %(shipped)s AND notification.template = 'fulfilled'
          AND notification.channel = 'sms'
          AND placed.{SENT_BY_SMS.replace("AND ", "AND placed.")}
    """,
    "notifications-tell-of-messages": f"""
        UPDATE notifications_notification SET order_id = %(unknown)s WHERE {SENT_BY_SMS}
    """,
    "failed-notifications-have-letters": f"""
        UPDATE notifications_notification SET status = 'failed', sent_at = NULL WHERE {SENT_BY_SMS}
    """,
    "sent-notifications-name-their-record": f"""
        UPDATE notifications_notification SET outcome_open = TRUE WHERE {SENT_BY_SMS}
    """,
    "provider-ids-are-told-apart": """
        UPDATE notifications_notification SET provider_message_id = 'SM1'
        WHERE order_id = %(shipped)s AND channel = 'sms'
    """,
}

LATE_ORDER = """
    UPDATE orders_order SET due_at = now() - interval '1 hour' WHERE id = %(waiting)s;
    UPDATE outbox_outboxmessage SET status = 'published', published_at = now() WHERE key = %(waiting)s;
"""
BY_EMAIL = "notifications.workflows.by_email"

MORE = [
    # What happens to another workflow of the message says nothing about the order.
    (
        "unfinished-orders-go-on",
        f"""
        {LATE_ORDER}
        INSERT INTO outbox_delivery (message_id, workflow, generation, status, not_before)
        SELECT message_id, '{BY_EMAIL}', 0, 'waiting', now() + interval '47 minutes'
        FROM orders_order WHERE id = %(waiting)s
    """,
    ),
    (
        "unfinished-orders-go-on",
        f"""
        {LATE_ORDER}
        UPDATE outbox_outboxmessage SET status = 'pending', not_before = now() + interval '47 minutes',
            workflows = ARRAY['{BY_EMAIL}'], last_error = 'waits' WHERE key = %(waiting)s
    """,
    ),
    (
        "unfinished-orders-go-on",
        f"""
        {LATE_ORDER}
        UPDATE outbox_deadletter SET message_id = (SELECT message_id FROM orders_order WHERE id = %(waiting)s),
            key = %(waiting)s, workflow = '{BY_EMAIL}', consumer = 'notifications.tasks.send_email'
        WHERE resolution = 'open' AND key = %(stuck)s;
        UPDATE outbox_attempt SET consumer = 'notifications.tasks.send_email',
            message_id = (SELECT message_id FROM orders_order WHERE id = %(waiting)s)
        WHERE consumer = 'orders.tasks.charge';
        UPDATE orders_order SET due_at = now() WHERE id = %(stuck)s
    """,
    ),
    (
        "lost-deliveries-are-resumed",
        """
        INSERT INTO outbox_delivery (message_id, workflow, generation, status, losses)
        SELECT id, 'tests.workflow', 0, 'sent', 8 FROM outbox_outboxmessage WHERE key = %(plain)s LIMIT 1
    """,
    ),
    (
        "deliveries-are-of-delivered-messages",
        """
        INSERT INTO outbox_delivery (message_id, workflow, generation, status)
        SELECT message_id, workflow, 0, 'sent' FROM outbox_deadletter
        WHERE resolution = 'open' AND workflow <> '' LIMIT 1
    """,
    ),
    (
        "one-copy-is-outstanding",
        """
        INSERT INTO outbox_delivery (message_id, workflow, generation, status, claim)
        SELECT id, 'tests.workflow', 0, 'sent', gen_random_uuid()
        FROM outbox_outboxmessage WHERE key = %(plain)s LIMIT 1
    """,
    ),
    (
        "orders-were-published",
        f"""
        INSERT INTO outbox_outboxmessage (id, {COPIED}) SELECT gen_random_uuid(), {COPIED}
        FROM outbox_outboxmessage WHERE key = %(plain)s AND {PLACED}
    """,
    ),
    (
        "unfinished-orders-keep-their-message",
        """
        UPDATE outbox_deadletter
        SET resolution = 'discarded', resolved_by = 'x', reason = 'x', resolved_at = now()
        WHERE key = %(stuck)s;
        UPDATE outbox_outboxmessage SET status = 'buried', last_error = 'x' WHERE key = %(stuck)s
    """,
    ),
    (
        "notifications-tell-of-messages",
        f"""
        UPDATE notifications_notification SET message_id = %(unknown)s WHERE {SENT_BY_SMS}
    """,
    ),
    (
        "replays-end-with-their-dead-letter",
        """
        UPDATE outbox_deadletter
        SET resolution = 'replaying', resolved_by = 'x', reason = 'x', resolved_at = now()
        WHERE key = %(bounced)s
    """,
    ),
    (
        "ended-work-stays-ended",
        """
        INSERT INTO outbox_deadletter (source, consumer, message_id, key, event_name, workflow, task_id,
            error_class, error, traceback, fingerprint, payload, headers, attempts, worker, buried_at, digest,
            resolution, resolved_at, resolved_by, reason)
        SELECT source, consumer, message_id, key, event_name, workflow, task_id, error_class, error, traceback,
            fingerprint, payload, headers, attempts, worker, buried_at - interval '1 day', digest, 'discarded',
            buried_at - interval '2 hours', 'x', 'x'
        FROM outbox_deadletter WHERE key = %(bounced)s
    """,
    ),
    (
        "tasks-have-their-messages",
        """
        INSERT INTO outbox_outboxmessage (
            id, event_name, event_version, key, payload, correlation_id, causation_id, trace, status, workflows,
            redeliveries, attempts, last_error, published_at)
        VALUES (%(unknown)s, 'outbox.task_enqueued', 1, 'tests.task', '{}', 'x', '', '{}', 'published', '{}',
            0, 0, '', now())
    """,
    ),
    (
        "resolved-letters-say-who-and-why",
        """
        UPDATE outbox_deadletter SET resolved_at = now() WHERE resolution = 'open'
    """,
    ),
]
"""Further ways to break some of them."""

CORRUPTIONS = {**IN_THE_OUTBOX, **IN_ORDERS, **IN_NOTIFICATIONS}


def spoil(books, sql):
    """Run a corruption in the test's transaction."""
    ids = {name: str(order.pk) for name, order in vars(books).items()}
    # Corruptions are scripts; only this kind of cursor takes several statements with values at once.
    with psycopg.ClientCursor(connection.connection) as cursor:
        cursor.execute(sql, {**ids, "unknown": str(models.new_message_id())})
        assert cursor.rowcount, "the corruption changed nothing"
