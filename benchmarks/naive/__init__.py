"""
The baseline: what people do today, `transaction.on_commit(lambda: chain(...).delay())`.

The same tables, the same business, the same rows in the end; no outbox, no idempotency record, no claims, no
versions, no deadlines. Whoever is killed between commit and `.delay()` loses the order.
"""
