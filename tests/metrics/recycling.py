"""For a worker whose children end after two tasks: `celery -A orderflow worker -I tests.metrics.recycling`."""

from __future__ import annotations

from celery import signals


@signals.celeryd_init.connect
def recycle(conf, **_):
    conf.worker_max_tasks_per_child = 2
