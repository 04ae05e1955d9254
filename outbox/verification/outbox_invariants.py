"""
The invariants of the outbox's own tables.

Rows that one transaction writes together are compared without tolerance, because a snapshot sees both or
neither. Where work is in flight between transactions, the tolerance depends on the lease.
"""

from __future__ import annotations

import datetime as dt

from outbox import periodic
from outbox.database import uuid7
from outbox.database.clock import LONGEST_SKEW
from outbox.relay.claims import LEASE
from outbox.verification import outbox_repairs
from outbox.verification.catalogue import Invariant

STALLED_AFTER = dt.timedelta(minutes=5)
"""How long a due message may wait. Longer waits mean that many relays in a row have died, that the broker is
down, or that no relay runs."""

MOST_LOSSES = 8
"""Lost copies of one delivery after which a person has to investigate: no worker seems to take them."""

CLOCKS_DIFFER = dt.timedelta(seconds=30)
"""How far the time of a statement may be ahead of the snapshot's time."""

AT_WORK = dt.timedelta(minutes=1)
"""How long after its dead letter was discarded a running try may still fail."""

READ = "docs/operations.md, “Reading a failed verdict”"
"""The place to read where no command helps."""

INVARIANTS = [
    Invariant(
        name="periodic-tasks-are-done",
        sentence="Every drain, sweep and other periodic task was done within twice its interval and a minute.",
        sql=f"{periodic.STANDINGS} SELECT name FROM standing WHERE is_late",  # noqa: S608 - no input
        values=periodic.expected,
        command="python manage.py outbox_status",
    ),
    Invariant(
        name="messages-move-on",
        sentence="Every message that is due is soon published, postponed, parked or buried.",
        sql="""
            SELECT id FROM outbox_outboxmessage
            WHERE status = 'pending' AND not_before < now() - %(stalled)s
        """,
        values=lambda: {"stalled": STALLED_AFTER},
        command="python manage.py outbox_status",
    ),
    Invariant(
        name="postponed-messages-say-why",
        sentence="Every message that waits for a later try has a reason: an error, an attempt or a workflow.",
        sql="""
            SELECT id FROM outbox_outboxmessage AS message
            WHERE status = 'pending' AND claim IS NULL AND not_before > now() + %(clocks)s
              AND redeliveries + attempts > 0 AND last_error = '' AND workflows = '{}'
              AND NOT EXISTS (
                  SELECT FROM outbox_attempt
                  WHERE message_id = message.id AND next_try_at IS NOT NULL
              )
        """,
        values=lambda: {"clocks": CLOCKS_DIFFER},
        command=READ,
    ),
    Invariant(
        name="claims-end",
        sentence="A relay's claim is on a pending message and lasts no longer than one lease.",
        sql="""
            SELECT id FROM outbox_outboxmessage
            WHERE claim IS NOT NULL AND (status <> 'pending' OR not_before > now() + %(longest)s)
        """,
        values=lambda: {"longest": LEASE + CLOCKS_DIFFER},
        command="python manage.py verify --repair",
        repair=outbox_repairs.REMOVE_CLAIM,
    ),
    Invariant(
        name="lost-deliveries-are-resumed",
        sentence="Every lost delivery is sent again, and every due delivery is soon sent.",
        sql="""
            SELECT delivery.message_id FROM outbox_delivery AS delivery
            WHERE (status = 'waiting' AND not_before < now() - %(stalled)s)
               OR (status = 'sent' AND losses >= %(most)s)
               OR (status = 'sent' AND EXISTS (
                      SELECT FROM outbox_queueprobe AS probe
                      JOIN outbox_outboxmessage AS message ON message.id = delivery.message_id
                      WHERE probe.queue = delivery.queue AND probe.sent_at > delivery.sent_at
                        AND probe.returned_at < now() - %(stalled)s
                        AND message.status = 'published' AND message.published_at < probe.sent_at))
        """,
        values=lambda: {"stalled": STALLED_AFTER, "most": MOST_LOSSES},
        command="python manage.py outbox_status",
    ),
    Invariant(
        name="deliveries-are-of-delivered-messages",
        sentence="Every outstanding delivery is of a message that exists, is readable, and was not given up.",
        sql="""
            SELECT delivery.message_id FROM outbox_delivery AS delivery
            LEFT JOIN outbox_outboxmessage AS message ON message.id = delivery.message_id
            WHERE message.id IS NULL
               OR EXISTS (
                   SELECT FROM outbox_deadletter AS dead_letter
                   WHERE dead_letter.message_id = delivery.message_id
                     AND dead_letter.workflow = delivery.workflow AND dead_letter.resolution = 'open')
        """,
        command=READ,
    ),
    Invariant(
        name="one-copy-is-outstanding",
        sentence="A delivery has one valid copy: its generation is not above its message's redeliveries.",
        sql="""
            SELECT delivery.message_id FROM outbox_delivery AS delivery
            JOIN outbox_outboxmessage AS message ON message.id = delivery.message_id
            WHERE delivery.generation > message.redeliveries
               OR (delivery.claim IS NOT NULL AND (
                   delivery.status <> 'waiting' OR delivery.not_before > now() + %(longest)s))
        """,
        values=lambda: {"longest": LEASE + CLOCKS_DIFFER},
        command=READ,
    ),
    Invariant(
        name="settled-messages-say-how",
        sentence="A published message has the time of its publication; a parked or buried one has a reason.",
        sql="""
            SELECT id FROM outbox_outboxmessage
            WHERE (status = 'published' AND published_at IS NULL)
               OR (status IN ('parked', 'buried') AND last_error = '')
        """,
        command=READ,
    ),
    Invariant(
        name="buried-messages-have-letters",
        sentence="Every message that the relay buried has a dead dead_letter.",
        sql="""
            SELECT id FROM outbox_outboxmessage AS message
            WHERE status = 'buried'
              AND NOT EXISTS (SELECT FROM outbox_deadletter WHERE message_id = message.id)
        """,
        command="python manage.py verify --repair",
        repair=outbox_repairs.DELIVER_BURIED,
    ),
    Invariant(
        name="attempts-are-sane",
        sentence="A postponed or waiting attempt has the time of the next try; any other has none.",
        sql="""
            SELECT id FROM outbox_attempt
            WHERE failed_at >= %(since)s AND (
                outcome NOT IN ('retried', 'postponed', 'waited', 'lost', 'buried')
                OR (outcome IN ('postponed', 'waited')) <> (next_try_at IS NOT NULL)
            )
        """,
        command=READ,
    ),
    Invariant(
        name="given-up-work-has-letters",
        sentence="Every message that a consumer gave up has a dead letter of that consumer.",
        sql="""
            SELECT DISTINCT message_id FROM outbox_attempt AS attempt
            WHERE outcome = 'buried' AND failed_at >= %(since)s
              AND NOT EXISTS (
                  SELECT FROM outbox_deadletter
                  WHERE message_id = attempt.message_id AND consumer = attempt.consumer
              )
        """,
        command=READ,
    ),
    Invariant(
        name="open-letters-can-be-replayed",
        sentence="The message of every open dead letter still exists.",
        sql="""
            SELECT id FROM outbox_deadletter AS dead_letter
            WHERE resolution = 'open' AND message_id IS NOT NULL
              AND NOT EXISTS (SELECT FROM outbox_outboxmessage WHERE id = dead_letter.message_id)
        """,
        command="python manage.py discard_failures --id {id} --dry-run",
    ),
    Invariant(
        name="open-letters-keep-their-attempts",
        sentence="The attempts that led to an open dead letter still exist.",
        sql="""
            SELECT id FROM outbox_deadletter AS dead_letter
            WHERE resolution = 'open' AND source = 'task' AND message_id IS NOT NULL
              AND NOT EXISTS (
                  SELECT FROM outbox_attempt
                  WHERE message_id = dead_letter.message_id AND consumer = dead_letter.consumer
              )
        """,
        command="python manage.py replay_failures --id {id} --dry-run",
    ),
    Invariant(
        name="resolved-letters-say-who-and-why",
        sentence="A resolved dead letter has a person, a time and a reason; an open one has none of them.",
        sql="""
            SELECT id FROM outbox_deadletter
            WHERE (resolution = 'open') <> (resolved_at IS NULL)
               OR (resolution = 'open') <> (resolved_by = '')
               OR (resolution = 'open') <> (reason = '')
        """,
        command=READ,
    ),
    Invariant(
        name="replayed-letters-were-delivered",
        sentence="The message of every replayed dead letter was delivered again.",
        sql="""
            SELECT dead_letter.id FROM outbox_deadletter AS dead_letter
            JOIN outbox_outboxmessage AS message ON message.id = dead_letter.message_id
            WHERE dead_letter.resolution IN ('replaying', 'replayed', 'recovered')
              AND dead_letter.resolved_at >= %(since)s
              AND message.redeliveries = 0
        """,
        command="python manage.py verify --repair",
        repair=outbox_repairs.DELIVER_REPLAYED,
    ),
    Invariant(
        name="replays-end-with-their-dead-letter",
        sentence="A dead letter is being replayed exactly as long as its replay is under way.",
        sql="""
            SELECT dead_letter.id FROM outbox_deadletter AS dead_letter
            FULL JOIN (SELECT dead_letter_id FROM outbox_replay WHERE outcome = 'under_way') AS replay
              ON replay.dead_letter_id = dead_letter.id
            WHERE (dead_letter.resolution = 'replaying') <> (replay.dead_letter_id IS NOT NULL)
        """,
        command=READ,
    ),
    Invariant(
        name="ended-work-stays-ended",
        sentence="The work of a discarded dead letter is neither tried again nor given up again.",
        sql="""
            SELECT dead_letter.id FROM outbox_deadletter AS dead_letter
            WHERE dead_letter.resolution = 'discarded' AND dead_letter.resolved_at >= %(since)s
              AND (EXISTS (
                  SELECT FROM outbox_attempt
                  WHERE message_id = dead_letter.message_id AND consumer = dead_letter.consumer
                    AND failed_at > dead_letter.resolved_at + %(at_work)s
              ) OR EXISTS (
                  SELECT FROM outbox_deadletter AS later
                  WHERE later.message_id = dead_letter.message_id AND later.consumer = dead_letter.consumer
                    AND later.buried_at > dead_letter.resolved_at + %(at_work)s
              ))
        """,
        values=lambda: {"at_work": AT_WORK},
        command=READ,
    ),
    Invariant(
        name="inbox-knows-its-messages",
        sentence="Every inbox entry belongs to a message that exists or is older than the retention.",
        sql=f"""
            SELECT message_id FROM outbox_inboxentry AS entry
            WHERE taken_at >= %(since)s AND {uuid7.moment_in_sql("message_id")} > %(retained)s + %(skew)s
              AND NOT EXISTS (SELECT FROM outbox_outboxmessage WHERE id = entry.message_id)
        """,  # noqa: S608 - a name of our own column
        values=lambda: {"skew": LONGEST_SKEW},
        command=READ,
    ),
    Invariant(
        name="causes-are-known",
        sentence="The message that caused another one exists or is older than the retention.",
        sql=f"""
            SELECT id FROM (
                SELECT id, causation_id FROM outbox_outboxmessage
                WHERE created_at >= %(since)s
                  AND causation_id ~ '^[0-9a-f]{{8}}-[0-9a-f]{{4}}-7[0-9a-f]{{3}}-[0-9a-f]{{4}}-[0-9a-f]{{12}}$'
                OFFSET 0
            ) AS caused
            WHERE {uuid7.moment_in_sql("causation_id")} > %(retained)s + %(skew)s
              AND NOT EXISTS (
                  SELECT FROM outbox_outboxmessage AS cause WHERE cause.id = caused.causation_id::uuid
              )
        """,  # noqa: S608 - a name of our own column
        values=lambda: {"skew": LONGEST_SKEW},
        command=READ,
    ),
    Invariant(
        name="tasks-have-their-messages",
        sentence="Every enqueued task that has not succeeded has its message, and each such message its task.",
        sql=f"""
            SELECT message_id FROM outbox_enqueuedtask AS task
            WHERE status <> 'SUCCESSFUL' AND {uuid7.moment_in_sql("message_id")} > %(retained)s + %(skew)s
              AND NOT EXISTS (SELECT FROM outbox_outboxmessage WHERE id = task.message_id)
            UNION ALL
            SELECT id FROM outbox_outboxmessage AS message
            WHERE event_name = 'outbox.task_enqueued'
              AND NOT EXISTS (SELECT FROM outbox_enqueuedtask WHERE message_id = message.id)
        """,  # noqa: S608 - a name of our own column
        values=lambda: {"skew": LONGEST_SKEW},
        command=READ,
    ),
]
