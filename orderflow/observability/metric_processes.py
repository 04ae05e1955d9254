"""
Which processes count and serve metrics. They are off unless `METRICS_PORT` is set; then nothing is imported.

The main process of a worker, of a relay, of beat and of the web server counts what its own threads do. Before
it forks, it opens a channel on which its children hand their counts over. After a fork the child closes what it
has inherited of the port, and sends instead of counting. Commands count nothing: nobody would read it.

The port closes with the process, so that what its last tasks have counted can be read until then.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from celery import signals
from django.conf import settings

from outbox import telemetry

if TYPE_CHECKING:
    from orderflow.observability.counting import Count
    from orderflow.observability.datagrams import Channel, Sender
    from orderflow.observability.metrics import Metrics, Server


class _Process:
    """What this process counts with. A main process has `metrics`; a child of it has a `sender`."""

    counts: Callable[[str, dict[str, Any]], Sequence[Count]]
    metrics: Metrics | None = None
    server: Server | None = None
    channel: Channel | None = None
    sender: Sender | None = None


def is_on() -> bool:
    """Return whether the settings name a port."""
    return settings.METRICS_PORT > 0


def connect() -> None:
    """Let workers and beat count, if metrics are on. Called once by `apps.ready()`."""
    if is_on():
        signals.worker_init.connect(_begin_worker)
        signals.beat_init.connect(_begin_beat)
        telemetry.time_queues()


def begin_web() -> None:
    """Begin in Gunicorn's main process, before it forks its workers, if metrics are on."""
    if is_on():
        begin()


def begin(*, pool: str = "", usage: Any = None) -> Metrics | None:
    """Count and serve in this process, unless it does, or its main process does that for it."""
    if _Process.metrics is not None or _Process.sender is not None:
        return _Process.metrics
    from orderflow.observability import counting, datagrams, metrics

    _Process.counts = counting.counts
    made = _Process.metrics = metrics.Metrics(pool=pool, usage=usage)
    channel = _Process.channel = datagrams.Channel()
    threading.Thread(target=_receive, args=[channel, made], name="metrics", daemon=True).start()
    _Process.server = metrics.Server(made, address=settings.METRICS_ADDRESS, port=settings.METRICS_PORT)
    _Process.server.start()
    telemetry.register(count)
    _hooks.register()
    return made


def count(signal: str, fields: dict[str, Any]) -> None:
    """Count a signal, or hand it over to the main process."""
    if not (found := _Process.counts(signal, fields)):
        return
    if _Process.sender is not None:
        _Process.sender.send(found)
    elif _Process.metrics is not None:
        _Process.metrics.add(found)


def _receive(channel: Channel, metrics: Metrics) -> None:
    """Add what children hand over, until the channel is closed. One thread."""
    from orderflow.observability.datagrams import Unreadable

    while True:
        try:
            lost, counts = channel.receive()
        except Unreadable:
            metrics.lose(1)
            continue
        except OSError:
            return
        if lost:
            metrics.lose(lost)
        metrics.add(counts)


class _Hooks:
    """The hook for forks, which cannot be unregistered."""

    is_registered = False

    def register(self) -> None:
        if not self.is_registered:
            self.is_registered = True
            os.register_at_fork(after_in_child=_after_fork)


_hooks = _Hooks()


def _after_fork() -> None:
    """In a child: send from now on. Nothing here waits for a lock that another thread may have held."""
    if _Process.channel is not None:
        _Process.sender = _Process.channel.for_child()
    if _Process.server is not None:
        _Process.server.close_in_child()
    _Process.metrics = _Process.server = _Process.channel = None


def _begin_worker(sender: Any, **_: Any) -> None:
    """Begin before the pool forks. The pool itself exists when somebody asks."""
    pool = settings.POOL or str(sender.hostname).partition("@")[0]
    begin(pool=pool, usage=lambda: _usage(sender))


def _begin_beat(**_: Any) -> None:
    begin()


def _usage(worker: Any) -> tuple[int, int]:
    """Return how many tasks run in a worker's pool, and how many can."""
    from celery.worker import state

    pool: Any = getattr(worker, "pool", None)
    size = int(getattr(pool, "num_processes", 0) or getattr(pool, "limit", 0) or 1) if pool else 0
    return min(len(state.active_requests), size), size
