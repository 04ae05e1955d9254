"""
Which fault raises which alerts.

`raises` must all fire. `accompanied_by` may fire as well, because they say something true about the same fault:
what was late during an outage counts as late when it is done after it. Any other alert is a failure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from orderflow.alerts.matrix import faults
from orderflow.alerts.matrix.faults import End, Target

LATE = ("OrdersLateFastBurn", "OrdersLateSlowBurn", "CriticalTimeHigh")
"""All that says that orders or messages are late."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """
    One fault of the matrix.

    `within` is the time in which all alerts of `raises` must fire, before it is shortened. `unshortened` is
    added to it for what no factor shortens, such as the time until the next probe of a breaker.

    With `ends_by_itself`, the fault ends outside of our reach, and the runbook's commands follow. Otherwise
    these commands alone must end it.
    """

    name: str
    fault: str
    """What is broken, for the page."""
    begin: Callable[[Target], End]
    raises: tuple[str, ...]
    accompanied_by: tuple[str, ...] = ()
    ends_by_itself: bool = False
    within: float = 300.0
    unshortened: float = 10.0

    @property
    def runbook(self) -> str:
        """The alert whose runbook is followed."""
        return self.raises[0]

    @property
    def expected(self) -> frozenset[str]:
        """All alerts that may fire."""
        return frozenset((*self.raises, *self.accompanied_by))


CASES = (
    Case(
        name="worker-gone",
        fault="The worker for SMS is killed and not started again",
        begin=faults.keep_down("sms"),
        raises=("WorkerGone", "QueueWithoutConsumers"),
        accompanied_by=("CriticalTimeHigh",),
    ),
    Case(
        name="orders-workers-gone",
        fault="All workers for orders are killed and not started again",
        begin=faults.keep_down("orders", "orders-2"),
        raises=("QueueWithoutConsumers", "WorkerGone", "OrdersLateFastBurn"),
        accompanied_by=(*LATE, "OrdersStuck"),
    ),
    Case(
        name="relay-gone",
        fault="The relay is killed and not started again",
        begin=faults.keep_down("relay"),
        raises=("RelayGone", "OutboxStalled", "QueueWithoutConsumers", "SweepNotRunning"),
        accompanied_by=(*LATE, "OrdersStuck"),
    ),
    Case(
        name="beat-gone",
        fault="beat is killed and not started again",
        begin=faults.keep_down("beat"),
        raises=("BeatGone", "SweepNotRunning"),
        accompanied_by=(*LATE, "OrdersStuck"),
    ),
    Case(
        name="sweep-fails",
        fault="The sweep for late orders fails every time: its row cannot be written",
        begin=faults.break_sweep,
        raises=("SweepNotRunning",),
        ends_by_itself=True,
    ),
    Case(
        name="database-down",
        fault="PostgreSQL refuses all connections",
        begin=faults.refuse_connections("database"),
        raises=("DatabaseDown",),
        accompanied_by=(
            *LATE,
            "OutboxStalled",
            "OrdersStuck",
            "WorkerGone",
            "RelayGone",
            "BeatGone",
            "SweepNotRunning",
            "QueueWithoutConsumers",
            "FailureRatioHigh",
        ),
    ),
    Case(
        name="broker-down",
        fault="The broker refuses all connections",
        begin=faults.refuse_connections(),
        # What cannot be sent is postponed, so the outbox itself is not stalled.
        raises=("BrokerDown",),
        accompanied_by=(
            *LATE,
            "OutboxStalled",
            "OrdersStuck",
            "SweepNotRunning",
            "QueueWithoutConsumers",
            "FailureRatioHigh",
        ),
    ),
    Case(
        name="provider-down",
        fault="The payment provider does not answer for long",
        begin=faults.provider("payments", fault="refuse"),
        raises=("ProviderDown", "OrdersLateFastBurn"),
        accompanied_by=(*LATE, "FailureRatioHigh"),
        ends_by_itself=True,
        unshortened=30.0,
    ),
    Case(
        name="wrong-credentials",
        fault="The push provider refuses our credentials",
        begin=faults.provider("push", fault="error", status=401),
        raises=("CredentialsRefused",),
        accompanied_by=("CriticalTimeHigh", "FailureRatioHigh"),
        ends_by_itself=True,
        unshortened=30.0,
    ),
    Case(
        name="slow-providers",
        fault="Payments and the warehouse take seconds for each call",
        begin=faults.provider("payments", "warehouse", fault="slow", latency_ms=3_500),
        raises=("OrdersLateFastBurn", "CriticalTimeHigh"),
        accompanied_by=LATE,
        ends_by_itself=True,
    ),
    Case(
        name="channel-fails",
        fault="The SMS provider refuses every message for good",
        begin=faults.provider("sms", fault="error", status=400),
        raises=("NotificationChannelFailing", "FailureRatioHigh", "DeadLettersGrowing"),
        accompanied_by=("CriticalTimeHigh",),
        ends_by_itself=True,
    ),
    Case(
        name="poison",
        fault="The payment provider refuses the requests of some orders: their messages end in dead letters",
        begin=faults.poison,
        raises=("DeadLettersGrowing",),
        accompanied_by=(*LATE, "FailureRatioHigh"),
        ends_by_itself=True,
    ),
    Case(
        name="order-locked",
        fault="A forgotten session holds the lock on the row of an unfinished order",
        begin=faults.forget_session,
        raises=("OrdersStuck",),
        accompanied_by=(*LATE, "FailureRatioHigh"),
        ends_by_itself=True,
    ),
    Case(
        name="changed-by-hand",
        fault="A row is changed by hand, so that an invariant does not hold",
        begin=faults.change_by_hand,
        raises=("VerificationViolated",),
    ),
    Case(
        name="not-verified",
        fault="Nothing has been verified for four hours",
        begin=faults.age_verifications,
        raises=("VerificationNotRun",),
    ),
    Case(
        name="database-full",
        fault="A forgotten copy of a table fills the database",
        begin=faults.leave_a_copy,
        raises=("DatabaseNearLimit",),
        ends_by_itself=True,
        within=600,
    ),
    Case(
        name="exporter-gone",
        fault="The exporter of metrics is killed and not started again",
        begin=faults.keep_down("metrics"),
        raises=("MetricsAbsent",),
    ),
)
NAMES = tuple(case.name for case in CASES)


def chosen(names: Sequence[str]) -> list[Case]:
    """
    Return the cases with these names, in their usual order; all of them if none is named.

    Raises:
        ValueError: if there is no such case.
    """
    if unknown := sorted(set(names) - set(NAMES)):
        raise ValueError(f"no such fault: {', '.join(unknown)}; there are {', '.join(NAMES)}")
    return [case for case in CASES if not names or case.name in names]
