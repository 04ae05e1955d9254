"""*Messages*: the way of a message from left to right: outbox, relay, queues, dead letters."""

from __future__ import annotations

from deploy.grafana.panels import (
    PER_SECOND,
    SECONDS,
    Dashboard,
    Kind,
    Limits,
    Panel,
    Query,
    Variable,
)

QUARTER = 6
LATE = 60
"""Seconds after which a due message counts as late, as for `outbox_status`."""

PENDING = "outbox/outboxmessage/?status__exact=pending"
OPEN = "outbox/deadletter/"


def quantile(share: float, histogram: str, by: str = "", legend: str = "", only: str = "") -> Query:
    """Return a quantile of a histogram, for each value of a label if one is given."""
    labels = f"le, {by}" if by else "le"
    rate = f"sum by ({labels}) (rate({histogram}_bucket{only}[$__rate_interval]))"
    return Query(f"histogram_quantile({share}, {rate})", legend or f"p{share * 100:g}")


def heading(text: str, *links: str, admin: str = "") -> Panel:
    """Return the title of a column."""
    return Panel(title="", description=text, kind=Kind.TEXT, width=QUARTER, height=3, alerts=links, admin=admin)


COLUMNS = (
    heading("### 1 · Outbox →\nRows, written with the change that made them necessary.", admin=PENDING),
    heading("### 2 · Relay →\nTakes due rows and hands them to the broker, in batches."),
    heading("### 3 · Queues and workers →\nWhat the broker holds, and who takes it."),
    heading(
        "### 4 · Dead letters ↺\nWhat could not be finished. A replay returns it to the outbox.", admin=OPEN
    ),
)

NOW = (
    Panel(
        title="Oldest due message",
        description=(
            "For how long the oldest message has been due. It is close to 0 while a relay runs and the broker "
            "accepts messages, whatever the load."
        ),
        queries=(Query("max(orderflow_outbox_oldest_due_seconds)"),),
        kind=Kind.STAT,
        unit=SECONDS,
        limits=Limits(warning=10, critical=LATE),
        alerts=("OutboxStalled",),
        admin=PENDING,
        width=QUARTER,
        height=4,
    ),
    Panel(
        title="Seconds to drain",
        description="How long the relay would need for what is due, at its present rate.",
        queries=(Query("max(orderflow_outbox_drain_seconds)"),),
        kind=Kind.STAT,
        unit=SECONDS,
        limits=Limits(warning=LATE, critical=600),
        alerts=("OutboxStalled", "RelayGone"),
        admin=PENDING,
        width=QUARTER,
        height=4,
    ),
    Panel(
        title="Queues without a consumer",
        description="Queues that nobody takes from. It must be 0.",
        queries=(
            Query('count(max by (queue) (orderflow_queue_consumers{queue=~"$queue"}) == 0) or vector(0)'),
        ),
        kind=Kind.STAT,
        limits=Limits(critical=1),
        alerts=("QueueWithoutConsumers",),
        width=QUARTER,
        height=4,
    ),
    Panel(
        title="Open dead letters",
        description="Work that waits for a person.",
        queries=(Query("sum(max by (consumer, fingerprint) (orderflow_dead_letters_open)) or vector(0)"),),
        kind=Kind.STAT,
        limits=Limits(warning=1, critical=50),
        alerts=("DeadLettersGrowing",),
        admin=OPEN,
        width=QUARTER,
        height=4,
    ),
)

AMOUNT = (
    Panel(
        title="Messages in the outbox",
        description=(
            "Pending: due now, or later, as a retry. Parked: no code here can read them. Buried: the relay "
            "gave up."
        ),
        queries=(Query("max by (status) (orderflow_outbox_messages)", "{{status}}"),),
        alerts=("OutboxStalled",),
        admin=PENDING,
        width=QUARTER,
    ),
    Panel(
        title="Published",
        description=(
            "Messages per second that the broker has accepted: counted from rows, and by the relays "
            "themselves. The lines agree unless a relay was killed or a scrape was missed."
        ),
        queries=(
            Query("max(rate(orderflow_outbox_published_total[$__rate_interval]))", "rows"),
            Query("sum(rate(orderflow_relay_messages_total[$__rate_interval]))", "relays"),
        ),
        unit=PER_SECOND,
        alerts=("RelayGone", "BrokerDown"),
        width=QUARTER,
    ),
    Panel(
        title="Messages in queues",
        description=(
            "Ready: nobody has taken them. Unacknowledged: a worker has, and is not done. Ready messages that "
            "grow need more workers; unacknowledged ones that stay need a look at a provider."
        ),
        queries=(
            Query('max by (queue, state) (orderflow_queue_messages{queue=~"$queue"})', "{{queue}}: {{state}}"),
        ),
        alerts=("QueueWithoutConsumers", "WorkerGone"),
        width=QUARTER,
    ),
    Panel(
        title="Open by fingerprint",
        description=(
            "The causes with the most open dead letters. One fingerprint is one error at one place; *other* is "
            "the rest."
        ),
        queries=(
            Query(
                "topk(10, max by (consumer, fingerprint) (orderflow_dead_letters_open))",
                "{{consumer}} {{fingerprint}}",
            ),
        ),
        kind=Kind.BARS,
        limits=Limits(warning=1, critical=50),
        alerts=("DeadLettersGrowing",),
        admin=OPEN,
        width=QUARTER,
    ),
)

SPEED = (
    Panel(
        title="Oldest due message over time",
        description=(
            "A saw whose teeth grow is a relay that does not keep up; a straight line upwards is one that "
            "stands still."
        ),
        queries=(Query("max(orderflow_outbox_oldest_due_seconds)", "oldest due"),),
        unit=SECONDS,
        limits=Limits(critical=LATE),
        alerts=("OutboxStalled",),
        admin=PENDING,
        width=QUARTER,
    ),
    Panel(
        title="Relay: one batch",
        description="How long a relay takes for one batch, from the claim to the broker's confirmation.",
        queries=(
            quantile(0.5, "orderflow_relay_batch_seconds"),
            quantile(0.95, "orderflow_relay_batch_seconds"),
        ),
        unit=SECONDS,
        alerts=("BrokerDown",),
        width=QUARTER,
    ),
    Panel(
        title="Wait in the queue",
        description="How long a task waits for a free thread or process: 95 of 100 wait less.",
        queries=(quantile(0.95, "orderflow_queue_wait_seconds", "task", "{{task}}", only='{task=~"$task"}'),),
        unit=SECONDS,
        limits=Limits(warning=10, critical=LATE),
        alerts=("WorkerGone", "CriticalTimeHigh"),
        width=QUARTER,
    ),
    Panel(
        title="Buried and resolved",
        description="Dead letters per minute: buried by consumer, and resolved by a person.",
        queries=(
            Query(
                "60 * max by (consumer) (rate(orderflow_dead_letters_total[$__rate_interval]))",
                "buried: {{consumer}}",
            ),
            Query(
                "60 * max by (resolution) (rate(orderflow_dead_letters_resolved_total[$__rate_interval]))",
                "{{resolution}}",
            ),
        ),
        unit="suffix: /min",
        alerts=("DeadLettersGrowing",),
        admin="outbox/deadletter/?resolution=all",
        width=QUARTER,
    ),
)

TROUBLE = (
    Panel(
        title="Critical time by event",
        description="From the commit to the end of the work: 95 of 100 are faster.",
        queries=(quantile(0.95, "orderflow_message_critical_seconds", "event", "{{event}}"),),
        unit=SECONDS,
        limits=Limits(critical=LATE),
        alerts=("CriticalTimeHigh",),
        admin="outbox/outboxmessage/",
        width=QUARTER,
    ),
    Panel(
        title="Postponed, parked",
        description=(
            "Messages per minute that the relay could not start now (postponed), or that this code cannot read "
            "(parked)."
        ),
        queries=(
            Query("60 * sum(rate(orderflow_messages_postponed_total[$__rate_interval]))", "postponed"),
            Query("60 * sum(rate(orderflow_messages_parked_total[$__rate_interval]))", "parked"),
        ),
        unit="suffix: /min",
        alerts=("OutboxStalled",),
        admin="outbox/outboxmessage/?status__exact=parked",
        width=QUARTER,
    ),
    Panel(
        title="Consumers per queue",
        description="Workers that are connected to each queue. A queue with none stands still.",
        queries=(Query('max by (queue) (orderflow_queue_consumers{queue=~"$queue"})', "{{queue}}"),),
        alerts=("QueueWithoutConsumers", "WorkerGone"),
        width=QUARTER,
    ),
    Panel(
        title="Copies of messages",
        description=(
            "Messages per minute that were sent again: redelivered after a failure, resumed by the sweep, or "
            "lost by a broker. Copies are harmless; many of them are a symptom."
        ),
        queries=(
            Query("60 * max by (kind) (rate(orderflow_message_copies_total[$__rate_interval]))", "{{kind}}"),
        ),
        unit="suffix: /min",
        alerts=("BrokerDown", "WorkerGone"),
        admin="outbox/attempt/",
        width=QUARTER,
    ),
)

DASHBOARD = Dashboard(
    uid="orderflow-messages",
    title="messages",
    description="The way of a message from left to right: outbox, relay, queues, dead letters.",
    rows=(
        ("The one way", COLUMNS + NOW),
        ("How much", AMOUNT),
        ("How fast", SPEED),
        ("What goes wrong", TROUBLE),
    ),
    variables=(
        Variable(label="queue", metric="orderflow_queue_messages", title="Queue"),
        Variable(label="task", metric="orderflow_queue_wait_seconds_count", title="Task"),
    ),
)
