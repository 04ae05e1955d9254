"""
Celery: broker, queues, routes, acknowledgements, limits and the beat schedule, as plain data.

Every value that is not Celery's default has its reason beside it. The problems that these values prevent were
measured; the tests under `tests/chaos` demonstrate each of them.
"""

from __future__ import annotations

from typing import Any

from kombu import Exchange, Queue

from orderflow import settings
from orderflow.configuration import tls
from outbox import schedule

# Broker ----------------------------------------------------------------------------------------------

broker_url = settings.BROKER_URL
broker_use_ssl = tls.options(broker_url) or False  # Flower reads it here; connections read the URL too
_is_redis = broker_url.startswith("redis")
_pool = settings.POOL or "default"  # the worker pool; it has its own unacked keys

broker_connection_retry_on_startup = True
broker_connection_max_retries = None  # unlimited: 0 would stop the worker at once, 100 after an hour
# One connection for each thread that publishes: with the default of 10, the tasks of 64 threads would wait for
# each other while the broker hangs, until their time limits. Connections are opened when they are needed.
broker_pool_limit = 256
broker_connection_timeout = 2  # a refused or hanging broker is noticed within seconds

SOFT_TIME_LIMIT, TIME_LIMIT = 15, 20  # seconds; the leases and the visibility timeout build on them

_one_retry = {"max_retries": 1, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.5}
if _is_redis:
    broker_transport_options: dict[str, Any] = {
        # Longer than the hard limit plus the longest countdown of a quick retry, or a slow task runs twice.
        "visibility_timeout": TIME_LIMIT + 12,
        # Look for messages of dead workers every second; the default is every 100 seconds.
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        # If a worker is killed while it holds this lock, the others wait only this long, not 300 seconds.
        "unacked_mutex_expire": 5,
        # Pools with other limits must not restore each other's messages.
        "unacked_key": f"unacked-{_pool}",
        "unacked_index_key": f"unacked-index-{_pool}",
        "unacked_mutex_key": f"unacked-mutex-{_pool}",
        # Connections can be half-open; without these settings a worker receives nothing for minutes, and a
        # publish waits forever. The worker's own blocking read takes 1 second of it.
        "socket_timeout": 3,
        "socket_connect_timeout": 2,
        "socket_keepalive": True,
        "health_check_interval": 2,
        **_one_retry,
    }
else:
    broker_transport_options = {
        # A publish succeeds only when the broker confirms it; without confirms 350 of 2,210 were lost silently.
        "confirm_publish": True,
        # A broker that hangs never confirms: without these settings a publish waits forever.
        "read_timeout": 3,
        "write_timeout": 3,
        **_one_retry,
    }
    broker_heartbeat = 10  # a worker notices within 20 seconds that its broker has disappeared

# Queues ----------------------------------------------------------------------------------------------

QUEUES = ("orders", "email", "sms", "push", "relay", "jobs")
# After this many deliveries a message that kills its worker every time moves from its quorum queue to
# `<queue>.dead`; `outbox.worker.dead_letter_queues` writes it to the dead-letter table. The limit is higher
# than `outbox.worker.losses.MOST_LOSSES`, which records more about the message and also works on Redis.
DELIVERY_LIMIT = 5


# Delayed delivery on quorum queues routes by topic; with another type RabbitMQ would lose retries.
task_default_exchange_type = "direct" if _is_redis else "topic"


def _queue(name: str) -> Queue:
    if _is_redis:
        return Queue(name, Exchange(name, type=task_default_exchange_type), routing_key=name)
    arguments: dict[str, Any] = {"x-queue-type": "quorum", "x-delivery-limit": DELIVERY_LIMIT}
    if name != "relay":  # it carries ticks of the schedule; expired ones are of no use
        arguments |= {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": f"{name}.dead"}
    exchange = Exchange(name, type=task_default_exchange_type)
    return Queue(name, exchange, routing_key=name, queue_arguments=arguments)


task_queues = [_queue(name) for name in QUEUES]
task_default_queue = "jobs"  # must be one of task_queues, or a retried task without a route is dropped
task_default_exchange = task_default_routing_key = task_default_queue
task_create_missing_queues = False  # a mistyped queue name fails where it is written
task_routes = {
    "orders.tasks.sweep": {"queue": "relay"},
    "notifications.tasks.sweep": {"queue": "relay"},
    "orders.tasks.*": {"queue": "orders"},
    "notifications.tasks.send_email": {"queue": "email"},
    "notifications.tasks.send_sms": {"queue": "sms"},
    "notifications.tasks.send_push": {"queue": "push"},
    "outbox.tasks.drain": {"queue": "relay"},
    "outbox.tasks.sweep": {"queue": "relay"},
    "outbox.tasks.unpark": {"queue": "relay"},
    "outbox.tasks.settle_replays": {"queue": "relay"},
    "outbox.tasks.watch_for_restores": {"queue": "relay"},
    "outbox.tasks.roll_up": {"queue": "relay"},
    "*": {"queue": "jobs"},
}

# Tasks -----------------------------------------------------------------------------------------------

task_acks_late = True  # redeliver the tasks of a dead worker
task_reject_on_worker_lost = True  # otherwise the task of a killed child is acknowledged
task_ignore_result = True  # results double the CPU of a task; long operator jobs enable them
task_soft_time_limit, task_time_limit = SOFT_TIME_LIMIT, TIME_LIMIT
task_serializer = "json"
accept_content = ["json"]  # pickle would let a broker user run code
task_publish_retry_policy = {"max_retries": 2, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.5}

# Workers ---------------------------------------------------------------------------------------------

worker_consumer = "outbox.worker.consumer:GuardedConsumer"  # survives malformed messages, reconnects within 1 s
worker_prefetch_multiplier = 1  # no message waits behind a long task while another worker is idle
worker_cancel_long_running_tasks_on_connection_loss = True  # no duplicate run while the broker redelivers
worker_soft_shutdown_timeout = 10
worker_max_tasks_per_child = 1000  # of processes; it does not apply to threads
worker_max_memory_per_child = (
    500_000  # kB, of a pool process, or of a worker with threads: several times the usual
)
worker_send_task_events = True  # Flower
task_send_sent_event = False  # would label Flower's metrics with every publisher's process
worker_hijack_root_logger = False  # orderflow.observability.logs formats and redacts
worker_proc_alive_timeout = 10
# Celery's Django fix-up closes the database session around every task unless this is set: 29 instead of
# 87 orders/s measured. `outbox.worker.sessions` checks kept sessions before each task.
CELERY_DB_REUSE_MAX = 10_000

# Results: operators' long jobs only ------------------------------------------------------------------

result_backend = "django-db"
result_extended = False  # would store arguments
result_expires = settings.RESULT_RETENTION_DAYS * 86_400

# Beat ------------------------------------------------------------------------------------------------

beat_scheduler = "outbox.worker.beat:Scheduler"  # in memory: there is no schedule file to corrupt
beat_enable_remote_control = True  # beat also answers `celery inspect ping`,
beat_remote_control_max_tick_age = 10  # unless it has stopped ticking

# Ticks have no expiry time, because the clock of the process that reads it may be a day off. The number of
# ticks that accumulate in an outage is bounded by `outbox.worker.beat`, and each costs one statement (see
# `outbox.periodic`, which repeats the interval of each task).
beat_schedule = schedule.beat() | {
    "resume overdue orders": {
        "task": "orders.tasks.sweep",
        "schedule": schedule.SWEEP_INTERVAL,
        "options": {"queue": "relay"},
    },
}

# Tasks that run every few seconds would fill Flower's list of tasks.
OFTEN = 60.0
task_annotations = {
    entry["task"]: {"send_events": False}
    for entry in beat_schedule.values()
    if isinstance(entry["schedule"], float) and entry["schedule"] < OFTEN
}
