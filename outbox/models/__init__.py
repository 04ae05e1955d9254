"""
The tables of the outbox: messages with inbox and attempts, deliveries, dead letters, heartbeats, statistics,
tasks, verifications.

Import them from this package; each module defines some of them.
"""

from outbox.models.dead_letters import UNRESOLVED, DeadLetter, DeadLetterQuerySet, Replay, ReplayCampaign
from outbox.models.deliveries import Delivery, PeriodicRun, QueueProbe, QueueWatch, RelayState
from outbox.models.heartbeats import Heartbeat
from outbox.models.messages import Attempt, InboxEntry, OutboxMessage, OutboxMessageQuerySet, new_message_id
from outbox.models.statistics import StatisticsBucket, StatisticsCursor, StatisticsTotal, UnsettledRow
from outbox.models.tasks import EnqueuedTask
from outbox.models.verifications import DatabaseIdentity, RepairRecord, Restore, Verification

__all__ = [
    "UNRESOLVED",
    "Attempt",
    "DatabaseIdentity",
    "DeadLetter",
    "DeadLetterQuerySet",
    "Delivery",
    "EnqueuedTask",
    "Heartbeat",
    "InboxEntry",
    "OutboxMessage",
    "OutboxMessageQuerySet",
    "PeriodicRun",
    "QueueProbe",
    "QueueWatch",
    "RelayState",
    "RepairRecord",
    "Replay",
    "ReplayCampaign",
    "Restore",
    "StatisticsBucket",
    "StatisticsCursor",
    "StatisticsTotal",
    "UnsettledRow",
    "Verification",
    "new_message_id",
]
