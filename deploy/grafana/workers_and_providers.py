"""*Workers and providers*: who does the work, what they call, and the servers below them."""

from __future__ import annotations

from deploy.grafana.messages import quantile
from deploy.grafana.panels import (
    BYTES,
    PER_SECOND,
    SECONDS,
    SHARE,
    Dashboard,
    Kind,
    Limits,
    Panel,
    Query,
    Variable,
)

QUARTER = 6
FAILED = 'outcome=~"transient|permanent|outage|crash"'

NOW = (
    Panel(
        title="Processes that are gone",
        description="Workers, relays and beat processes that ended without saying so, and have not come back.",
        queries=(Query('sum(max by (role, pool) (orderflow_workers{state="gone"})) or vector(0)'),),
        kind=Kind.STAT,
        limits=Limits(critical=1),
        alerts=("WorkerGone", "RelayGone", "BeatGone"),
        width=4,
        height=4,
    ),
    Panel(
        title="Servers",
        description="Whether the exporter reaches the database, the broker and Redis.",
        queries=(Query("max by (component) (orderflow_up)", "{{component}}"),),
        kind=Kind.STAT,
        limits=Limits(critical=1, falling=True),
        words=((0, "down", "red"), (1, "up", "green")),
        alerts=("DatabaseDown", "BrokerDown", "MetricsAbsent"),
        width=8,
        height=4,
    ),
    Panel(
        title="Open breakers",
        description="Providers that are down: their work waits in the database, and no attempt is spent.",
        queries=(Query("sum(max by (breaker) (orderflow_breaker_open)) or vector(0)"),),
        kind=Kind.STAT,
        limits=Limits(warning=1),
        alerts=("ProviderDown",),
        width=4,
        height=4,
    ),
    Panel(
        title="Credentials refused",
        description=(
            "Providers that refuse our key, token or password. All work for them waits until it is corrected."
        ),
        queries=(Query("sum(max by (provider) (orderflow_credentials_refused)) or vector(0)"),),
        kind=Kind.STAT,
        limits=Limits(critical=1),
        alerts=("CredentialsRefused",),
        width=4,
        height=4,
    ),
    Panel(
        title="Last verification",
        description="How long ago `verify` last compared all invariants. beat runs it every hour.",
        queries=(Query("max(orderflow_verification_age_seconds)"),),
        kind=Kind.STAT,
        unit=SECONDS,
        limits=Limits(warning=2 * 3600, critical=3 * 3600),
        alerts=("VerificationNotRun", "VerificationViolated"),
        admin="outbox/verification/",
        width=4,
        height=4,
    ),
)

WORKERS = (
    Panel(
        title="Last seen",
        description=(
            "How long ago the longest silent process of each pool was seen. It outlives the process: a killed "
            "worker keeps growing here until another one takes its place."
        ),
        queries=(
            Query(
                'max by (role, pool) (orderflow_worker_seen_age_seconds{pool=~"$pool"})', "{{role}} {{pool}}"
            ),
        ),
        unit=SECONDS,
        limits=Limits(warning=30, critical=60),
        alerts=("WorkerGone", "RelayGone", "BeatGone"),
        width=QUARTER,
    ),
    Panel(
        title="Processes",
        description="Processes by role, pool and state.",
        queries=(
            Query(
                'max by (role, pool, state) (orderflow_workers{pool=~"$pool"})', "{{role}} {{pool}}: {{state}}"
            ),
        ),
        alerts=("WorkerGone", "RelayGone", "BeatGone"),
        width=QUARTER,
    ),
    Panel(
        title="Pool saturation",
        description=(
            "Busy threads or processes ÷ all of them. A pool that stays at 100 % makes messages wait: start "
            "another worker, or find the slow provider."
        ),
        queries=(
            Query(
                'sum by (pool) (orderflow_pool_busy{pool=~"$pool"})'
                ' / sum by (pool) (orderflow_pool_size{pool=~"$pool"})',
                "{{pool}}",
            ),
        ),
        unit=SHARE,
        limits=Limits(warning=0.8, critical=0.95),
        alerts=("CriticalTimeHigh",),
        width=QUARTER,
    ),
    Panel(
        title="Periodic tasks: age ÷ interval",
        description=(
            "The time since each periodic task was last done, in its own intervals. Above 3, beat, the relay "
            "or the task itself is at fault."
        ),
        queries=(
            Query(
                "max by (task) (orderflow_periodic_task_age_seconds)"
                " / max by (task) (orderflow_periodic_task_interval_seconds)",
                "{{task}}",
            ),
        ),
        unit="suffix: ×",
        limits=Limits(warning=2, critical=3),
        alerts=("SweepNotRunning", "BeatGone"),
        width=QUARTER,
    ),
)

STEPS = (
    Panel(
        title="Attempts by outcome",
        description=(
            "Tries of tasks per second. Transient ones are tried again, outages wait without spending an "
            "attempt, permanent ones and crashes end in dead letters."
        ),
        queries=(
            Query(
                'sum by (outcome) (rate(orderflow_task_attempts_total{task=~"$task"}[$__rate_interval]))',
                "{{outcome}}",
            ),
        ),
        unit=PER_SECOND,
        stacked=True,
        alerts=("FailureRatioHigh",),
        admin="outbox/attempt/",
        width=QUARTER,
    ),
    Panel(
        title="Failure ratio by task",
        description="The share of each task's tries that failed, outages included.",
        queries=(
            Query(
                "sum by (task)"
                f' (rate(orderflow_task_attempts_total{{task=~"$task", {FAILED}}}[$__rate_interval]))'
                ' / sum by (task) (rate(orderflow_task_attempts_total{task=~"$task"}[$__rate_interval]))',
                "{{task}}",
            ),
        ),
        unit=SHARE,
        limits=Limits(warning=0.05, critical=0.2),
        alerts=("FailureRatioHigh",),
        admin="outbox/attempt/",
        width=QUARTER,
    ),
    Panel(
        title="Step duration",
        description="How long each task takes: 95 of 100 are faster. The hard limit is 20 s.",
        queries=(
            quantile(0.95, "orderflow_task_duration_seconds", "task", "{{task}}", only='{task=~"$task"}'),
        ),
        unit=SECONDS,
        limits=Limits(warning=10, critical=15),
        alerts=("CriticalTimeHigh",),
        width=QUARTER,
    ),
    Panel(
        title="Failed attempts, from rows",
        description=(
            "Failed tries per minute as the database knows them, also of workers that were killed before they "
            "were scraped."
        ),
        queries=(
            Query(
                "60 * max by (consumer, outcome) (rate(orderflow_attempts_total[$__rate_interval]))",
                "{{consumer}}: {{outcome}}",
            ),
        ),
        unit="suffix: /min",
        alerts=("FailureRatioHigh", "DeadLettersGrowing"),
        admin="outbox/attempt/",
        width=QUARTER,
    ),
)

PROVIDERS = (
    Panel(
        title="Provider calls",
        description="Calls per second by provider and outcome.",
        queries=(
            Query(
                "sum by (provider, outcome)"
                ' (rate(orderflow_provider_calls_total{provider=~"$provider"}[$__rate_interval]))',
                "{{provider}}: {{outcome}}",
            ),
        ),
        unit=PER_SECOND,
        alerts=("ProviderDown", "CredentialsRefused"),
        width=QUARTER,
    ),
    Panel(
        title="Provider call duration",
        description="How long calls take: 95 of 100 are faster. A call ends after `PROVIDER_TIMEOUT_SECONDS`.",
        queries=(
            quantile(
                0.95,
                "orderflow_provider_call_duration_seconds",
                "provider",
                "{{provider}}",
                only='{provider=~"$provider"}',
            ),
        ),
        unit=SECONDS,
        limits=Limits(warning=1, critical=5),
        alerts=("ProviderDown",),
        width=QUARTER,
    ),
    Panel(
        title="Breakers",
        description=(
            "When each breaker was open. While one is open, work for its provider waits; a probe closes it "
            "again."
        ),
        queries=(Query("max by (breaker) (orderflow_breaker_open)", "{{breaker}}"),),
        kind=Kind.STATES,
        limits=Limits(critical=1),
        words=((0, "closed", "green"), (1, "open", "red")),
        alerts=("ProviderDown",),
        width=QUARTER,
    ),
    Panel(
        title="Notification attempts",
        description="Tries to send a notification per second, by channel and outcome.",
        queries=(
            Query(
                "sum by (channel, outcome) (rate(orderflow_notification_attempts_total[$__rate_interval]))",
                "{{channel}}: {{outcome}}",
            ),
        ),
        unit=PER_SECOND,
        alerts=("NotificationChannelFailing",),
        admin="notifications/notification/",
        width=QUARTER,
    ),
)

SERVERS = (
    Panel(
        title="Memory",
        description=(
            "Resident memory of each process, and of its children together: those of a prefork pool, or the "
            "web's. A worker in a container is killed at 512 MB."
        ),
        queries=(
            Query('process_resident_memory_bytes{job=~"orderflow.*"}', "{{instance}}"),
            Query(
                "orderflow_child_processes_resident_memory_bytes and orderflow_child_processes > 0",
                "{{instance}}, children",
            ),
        ),
        unit=BYTES,
        limits=Limits(warning=400e6, critical=512e6),
        alerts=("WorkerGone",),
        width=QUARTER,
    ),
    Panel(
        title="Processor",
        description="Processor time of each process, and of its children together: 100 % is one core.",
        queries=(
            Query('rate(process_cpu_seconds_total{job=~"orderflow.*"}[$__rate_interval])', "{{instance}}"),
            Query(
                "rate(orderflow_child_processes_cpu_seconds_total[$__rate_interval])"
                " and orderflow_child_processes > 0",
                "{{instance}}, children",
            ),
        ),
        unit=SHARE,
        alerts=("CriticalTimeHigh",),
        width=QUARTER,
    ),
    Panel(
        title="Database sessions",
        description="Open sessions, and the number that the server allows.",
        queries=(
            Query("max(orderflow_database_sessions)", "open"),
            Query("max(orderflow_database_sessions_limit)", "limit"),
        ),
        alerts=("DatabaseDown",),
        width=QUARTER,
    ),
    Panel(
        title="Database size",
        description="The size of the database, and `DATABASE_SIZE_LIMIT` (0: none is set).",
        queries=(
            Query("max(orderflow_database_size_bytes)", "size"),
            Query("max(orderflow_database_size_limit_bytes)", "limit"),
        ),
        unit=BYTES,
        alerts=("DatabaseNearLimit",),
        width=QUARTER,
    ),
    Panel(
        title="Periodic tasks that fail",
        description="Tasks of the schedule whose last run failed. The row of each says with what.",
        queries=(Query("max by (task) (orderflow_periodic_task_failing)", "{{task}}"),),
        kind=Kind.STATES,
        limits=Limits(critical=1),
        words=((0, "works", "green"), (1, "fails", "red")),
        alerts=("SweepNotRunning",),
        width=12,
    ),
    Panel(
        title="Signals lost",
        description=(
            "Signals per minute that processes could not hand over to their worker's main process. What is "
            "counted from signals is too low while this is not 0; what is counted from rows is exact."
        ),
        queries=(Query("60 * sum(rate(orderflow_signals_lost_total[$__rate_interval]))", "lost"),),
        unit="suffix: /min",
        limits=Limits(critical=1),
        alerts=("MetricsAbsent",),
        width=QUARTER,
    ),
    Panel(
        title="Breakers: open for",
        description="For how long each breaker has been open; 0 while it is closed.",
        queries=(Query("max by (breaker) (orderflow_breaker_open_seconds)", "{{breaker}}"),),
        kind=Kind.BARS,
        unit=SECONDS,
        limits=Limits(warning=1, critical=300),
        alerts=("ProviderDown",),
        width=QUARTER,
    ),
)

DASHBOARD = Dashboard(
    uid="orderflow-workers",
    title="workers and providers",
    description="Who does the work, what they call, and the servers below them.",
    rows=(
        ("Now", NOW),
        ("Workers", WORKERS),
        ("Steps", STEPS),
        ("Providers", PROVIDERS),
        ("Processes and servers", SERVERS),
    ),
    variables=(
        Variable(label="pool", metric="orderflow_worker_seen_age_seconds", title="Pool"),
        Variable(label="task", metric="orderflow_task_attempts_total", title="Task"),
        Variable(label="provider", metric="orderflow_provider_calls_total", title="Provider"),
    ),
)
