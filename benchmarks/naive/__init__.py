"""
The baseline: the common `transaction.on_commit(lambda: chain(...).delay())`.

The same tables, the same business rules, the same rows at the end; no outbox, no idempotency record, no claims,
no versions, no deadlines. A process that is killed between commit and `.delay()` loses the order.
"""
