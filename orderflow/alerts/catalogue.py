"""
The alerts and recording rules, as data: symptoms first, then causes.

What rows say is exported by every process that serves `/metrics`, with the same values: expressions take the
maximum and drop `instance`. Durations are in braces so that the matrix can shorten them; see `durations`.
Windows of conditions that must end with their cause are at most `{4m}`: an alert clears within five minutes of
its mitigation.
"""

from __future__ import annotations

import dataclasses

PAGE, TICKET = "page", "ticket"
"""Severities: somebody must act now, or within a working day."""

BUDGET = 0.001
"""The share of orders that may be final later than the objective allows: 99.9 % within 60 seconds."""

FAST_BURN, SLOW_BURN = 14.4, 6
"""How many times faster than allowed the budget of 30 days is spent: 2 % of it in an hour, 5 % in six hours
(Site Reliability Workbook, chapter 5)."""

DATABASE_ANSWERS = 'max(orderflow_up{component="database"}) == 1'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recording:
    """A recording rule: an expression that several alerts, or the dashboards, use."""

    name: str
    expression: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alert:
    """
    One alert. `summary` may use the labels of the alert (`{{ $labels.queue }}`) and its `{{ $value }}`.

    `lasts` is how long the condition must hold, in braces like all durations; empty: it fires at once.
    `dashboard` is the last part of the uid of the dashboard that shows it (deploy/grafana).
    """

    name: str
    expression: str
    lasts: str = ""
    severity: str
    summary: str
    impact: str
    dashboard: str


def _late(window: str) -> str:
    return (
        f"max(increase(orderflow_orders_late_total[{{{window}}}]))"
        f" / max(increase(orderflow_orders_due_total[{{{window}}}]))"
    )


RECORDINGS = (
    *(
        Recording(name=f"orderflow:orders_late:ratio_increase{window}", expression=_late(window))
        for window in ("3m", "1h", "6h")
    ),
    # 0 while there are none, but no value while the database cannot say so.
    Recording(
        name="orderflow:dead_letters_open:sum",
        expression="sum(max by (consumer, fingerprint) (orderflow_dead_letters_open))"
        f" or 0 * ({DATABASE_ANSWERS})",
    ),
    Recording(
        name="orderflow:task_attempts_failed:ratio_rate4m",
        expression="sum by (task)"
        ' (rate(orderflow_task_attempts_total{outcome=~"transient|permanent|crash"}[{4m}]))'
        ' / sum by (task) (rate(orderflow_task_attempts_total{outcome!="skipped"}[{4m}]))',
    ),
    Recording(
        name="orderflow:message_critical_seconds:p95",
        expression="histogram_quantile(0.95,"
        " sum by (le, event) (rate(orderflow_message_critical_seconds_bucket[{4m}])))",
    ),
)


def _burn(times: float, long: str, short: str) -> str:
    return " and ".join(
        f"orderflow:orders_late:ratio_increase{window} > {times * BUDGET:g}" for window in (long, short)
    )


def _gone(role: str) -> str:
    """The process of a role was not seen for a minute, or never, although the database answers."""
    selector = f'{{role="{role}"}}'
    return (
        f"max by (role) (orderflow_worker_seen_age_seconds{selector}) > {{60}}"
        f" or (absent(orderflow_worker_seen_age_seconds{selector}) and on () ({DATABASE_ANSWERS}))"
    )


def _notifications(outcomes: str) -> str:
    """The number of notifications of a channel that ended in the last minutes."""
    selector = f'{{outcome=~"{outcomes}"}}'
    increase = f"increase(orderflow_notifications_total{selector}[{{4m}}])"
    return f"sum by (channel) (max by (channel, outcome) ({increase}))"


SYMPTOMS = (
    Alert(
        name="OrdersStuck",
        expression="max(orderflow_orders_stuck) > 0",
        lasts="{2m}",
        severity=PAGE,
        summary="{{ $value }} unfinished orders are overdue, and nothing resumes them",
        impact="Customers have placed, and perhaps paid, orders that will not be shipped until somebody acts.",
        dashboard="orders",
    ),
    Alert(
        name="OrdersLateFastBurn",
        expression=_burn(FAST_BURN, "1h", "3m"),
        severity=PAGE,
        summary="{{ $value | humanizePercentage }} of the last hour's orders were not final within a minute",
        impact="Many customers wait for their orders; 2 % of the error budget of 30 days are spent in an hour.",
        dashboard="orders",
    ),
    Alert(
        name="OrdersLateSlowBurn",
        expression=_burn(SLOW_BURN, "6h", "3m"),
        severity=TICKET,
        summary="{{ $value | humanizePercentage }} of the orders of six hours were not final within a minute",
        impact="Some customers wait for their orders; the error budget of 30 days will not last.",
        dashboard="orders",
    ),
    Alert(
        name="CriticalTimeHigh",
        expression="orderflow:message_critical_seconds:p95 > {60}",
        lasts="{1m}",
        severity=PAGE,
        summary="A twentieth of the {{ $labels.event }} messages takes more than a minute from commit to done",
        impact="What customers have asked for happens late: steps of orders, or notifications.",
        dashboard="messages",
    ),
    Alert(
        name="OutboxStalled",
        expression="max(orderflow_outbox_oldest_due_seconds) > {60}",
        lasts="{1m}",
        severity=PAGE,
        summary="The oldest message that is due has waited for {{ $value | humanizeDuration }}",
        impact="Orders are accepted and none is processed.",
        dashboard="messages",
    ),
    Alert(
        name="DeadLettersGrowing",
        expression="orderflow:dead_letters_open:sum"
        " - min_over_time(orderflow:dead_letters_open:sum[{1h}]) >= 5",
        severity=TICKET,
        summary="{{ $value }} more dead letters are open than at the best moment of the last hour",
        impact="Work has been given up: orders or notifications wait for a person.",
        dashboard="messages",
    ),
    Alert(
        name="FailureRatioHigh",
        expression="orderflow:task_attempts_failed:ratio_rate4m > 0.25 and sum by (task)"
        ' (increase(orderflow_task_attempts_total{outcome=~"transient|permanent|crash"}[{4m}])) >= 5',
        lasts="{1m}",
        severity=PAGE,
        summary="{{ $value | humanizePercentage }} of the attempts of {{ $labels.task }} fail",
        impact="Work is repeated and late, and ends in dead letters if this goes on.",
        dashboard="workers",
    ),
    Alert(
        name="NotificationChannelFailing",
        expression=f"{_notifications('failed')} / {_notifications('sent|failed')} > 0.1"
        f" and {_notifications('failed')} >= 3",
        severity=TICKET,
        summary="{{ $value | humanizePercentage }} of the notifications by {{ $labels.channel }} fail for good",
        impact="Customers are not told by this channel what happens to their orders.",
        dashboard="workers",
    ),
)

CAUSES = (
    Alert(
        name="ProviderDown",
        expression='max by (provider) (label_replace(orderflow_breaker_open_seconds, "provider", "$1",'
        ' "breaker", "(.+)")) > {300} unless on (provider)'
        " max by (provider) (orderflow_credentials_refused) == 1",
        severity=PAGE,
        summary="The provider {{ $labels.provider }} has not answered for {{ $value | humanizeDuration }}",
        impact="All work that needs this provider waits in the database; no attempt is spent, nothing is lost.",
        dashboard="workers",
    ),
    Alert(
        name="CredentialsRefused",
        expression="max by (provider) (orderflow_credentials_refused) == 1",
        lasts="{1m}",
        severity=PAGE,
        summary="The provider {{ $labels.provider }} refuses our credentials or another setting",
        impact="All work that needs this provider waits until the setting is corrected.",
        dashboard="workers",
    ),
    Alert(
        name="QueueWithoutConsumers",
        expression="max by (queue) (orderflow_queue_consumers) == 0",
        lasts="{2m}",
        severity=PAGE,
        summary="No worker takes messages from the queue {{ $labels.queue }}",
        impact="The work of this queue does not happen: steps of orders, notifications or jobs.",
        dashboard="messages",
    ),
    Alert(
        name="WorkerGone",
        expression='max by (role, pool) (orderflow_worker_seen_age_seconds{role="worker"}) > {60}',
        severity=PAGE,
        summary="A worker of the pool {{ $labels.pool }} was last seen {{ $value | humanizeDuration }} ago",
        impact="The pool is smaller than planned, or there is none: its work is late or does not happen.",
        dashboard="workers",
    ),
    Alert(
        name="RelayGone",
        expression=_gone("relay"),
        severity=PAGE,
        summary="No relay was seen for more than a minute",
        impact="Orders are accepted and none is processed, because nothing is published to the broker.",
        dashboard="messages",
    ),
    Alert(
        name="BeatGone",
        expression=_gone("beat"),
        severity=PAGE,
        summary="No beat was seen for more than a minute",
        impact="Orders are processed while a relay listens, but nothing resumes what was lost or is overdue.",
        dashboard="workers",
    ),
    Alert(
        name="SweepNotRunning",
        expression="max by (task) (orderflow_periodic_task_age_seconds)"
        " > 2 * max by (task) (orderflow_periodic_task_interval_seconds) + {60}"
        " or max by (task) (orderflow_periodic_task_failing) == 1"
        # Never, although it is due every few seconds.
        " or (max by (task) (orderflow_periodic_task_interval_seconds) <= 5"
        " unless on (task) max by (task) (orderflow_periodic_task_age_seconds))",
        lasts="{1m}",
        severity=PAGE,
        summary="The periodic task {{ $labels.task }} is not done on time",
        impact="What was lost or is overdue is not resumed, or old rows are not removed.",
        dashboard="workers",
    ),
    Alert(
        name="VerificationViolated",
        expression="max(orderflow_verification_violated) > 0",
        severity=PAGE,
        summary="{{ $value }} invariants did not hold at the last verification",
        impact="Data contradict the promise: an order, a payment or a notification may be wrong.",
        dashboard="orders",
    ),
    Alert(
        name="VerificationNotRun",
        expression="max(orderflow_verification_age_seconds) > {10800}"
        # Never: at none of the 36 times in three hours.
        f" or count_over_time((absent(orderflow_verification_age_seconds) and on () ({DATABASE_ANSWERS}))"
        "[{3h}:{5m}]) >= 36",
        severity=TICKET,
        summary="Nothing was verified for more than three hours; it is due every hour",
        impact="Nobody would know if data contradicted the promise.",
        dashboard="orders",
    ),
    Alert(
        name="DatabaseNearLimit",
        expression="max(orderflow_database_size_bytes) > 0.8 * (max(orderflow_database_size_limit_bytes) > 0)",
        lasts="{5m}",
        severity=TICKET,
        summary="The database has {{ $value | humanize1024 }}B, more than 80 % of its limit",
        impact="When the limit is reached, no order can be placed or processed.",
        dashboard="workers",
    ),
    Alert(
        name="DatabaseDown",
        expression='min(orderflow_up{component="database"}) == 0',
        lasts="{30s}",
        severity=PAGE,
        summary="PostgreSQL does not answer",
        impact="No order can be placed, and no work is done.",
        dashboard="workers",
    ),
    Alert(
        name="BrokerDown",
        expression='min(orderflow_up{component="broker"}) == 0',
        lasts="{30s}",
        severity=PAGE,
        summary="The broker does not answer",
        impact="Orders are accepted and none is processed; the work waits in the database.",
        dashboard="messages",
    ),
    Alert(
        name="MetricsAbsent",
        expression='absent(orderflow_up{component="database"})'
        f" or (absent(orderflow_orders_due_total) and on () ({DATABASE_ANSWERS}))"
        ' or absent(up{job="orderflow-processes"} == 1)',
        lasts="{2m}",
        severity=PAGE,
        summary="Metrics are missing: of rows and broker, or of all processes",
        impact="No other alert can be relied on: this system may be failing without anybody being told.",
        dashboard="workers",
    ),
)

ALERTS = (*SYMPTOMS, *CAUSES)
NAMES = tuple(alert.name for alert in ALERTS)

_ORDERS_ARE_LATE = ("OrdersLateFastBurn", "OrdersLateSlowBurn", "CriticalTimeHigh")
_NOTHING_IS_DELIVERED = (*_ORDERS_ARE_LATE, "OrdersStuck", "OutboxStalled", "SweepNotRunning")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inhibition:
    """While `source` fires nobody is told of its consequences, with the same values of the labels `equal`."""

    source: str
    targets: tuple[str, ...]
    equal: tuple[str, ...] = ()


INHIBITIONS = (
    Inhibition(
        source="DatabaseDown",
        targets=tuple(name for name in NAMES if name not in ("DatabaseDown", "BrokerDown", "MetricsAbsent")),
    ),
    Inhibition(
        source="BrokerDown",
        targets=(
            *_NOTHING_IS_DELIVERED,
            "FailureRatioHigh",
            "QueueWithoutConsumers",
            "WorkerGone",
            "RelayGone",
            "BeatGone",
            "VerificationNotRun",
        ),
    ),
    Inhibition(source="RelayGone", targets=(*_NOTHING_IS_DELIVERED, "QueueWithoutConsumers")),
    Inhibition(source="BeatGone", targets=("SweepNotRunning", "VerificationNotRun")),
    Inhibition(source="QueueWithoutConsumers", targets=_ORDERS_ARE_LATE),
    Inhibition(source="OrdersLateFastBurn", targets=("OrdersLateSlowBurn",)),
)
