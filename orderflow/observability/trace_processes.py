"""
Which processes trace, from when on, and until when. Traces are off unless `OTEL_EXPORTER_OTLP_ENDPOINT` is set.

Each process has an SDK of its own, because threads and connections do not survive a fork: children of a prefork
pool begin after the fork, workers with threads when they start, web workers when Gunicorn has started them, and
everything else, such as commands, with its first span. What they have recorded is exported when they end.

`traces` imports OpenTelemetry, which takes 15 MB (35 MB with gRPC); so only processes that trace import it.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from celery import signals
from django.conf import settings

from outbox import telemetry
from outbox.telemetry import Headers, Ids, Span

if TYPE_CHECKING:
    from orderflow.observability.traces import Sdk

WITHOUT = ("^https?://[^/]+/(livez|readyz|healthz|metrics|static/)",)
"""Requests that are not traced: they poll, or they are files."""

AFTER = "orderflow.middleware.ProbesMiddleware"
"""Requests are traced behind this middleware. Those before it answer for hosts that Django refuses to name."""


class _Late:
    """Begins to trace with the first span."""

    def span(
        self,
        name: str,
        kind: str,
        *,
        parent: Headers | None,
        links: Sequence[Headers],
        is_root: bool,
        began: float | None,
    ) -> Span:
        tracer = begin().tracer
        return tracer.span(name, kind, parent=parent, links=links, is_root=is_root, began=began)

    def ids(self) -> Ids | None:
        return None


class _Process:
    """The SDK of this process, and what it is for."""

    sdk: Sdk | None = None
    role = "command"


def is_on() -> bool:
    """Return whether the settings name a receiver of traces."""
    return bool(settings.OTEL_EXPORTER_OTLP_ENDPOINT) and not settings.OTEL_SDK_DISABLED


def connect() -> None:
    """Let this process and those that are forked from it trace. Called once by `apps.ready()`."""
    if not is_on():
        return
    telemetry.trace_with(_Late())
    os.register_at_fork(after_in_child=_after_fork)
    signals.worker_init.connect(_begin_worker)
    signals.worker_process_init.connect(_begin_child)
    signals.worker_process_shutdown.connect(_end)
    signals.worker_shutdown.connect(_end)
    atexit.register(_end)


def begin(role: str = "") -> Sdk:
    """Begin to trace in this process, unless it does."""
    if _Process.sdk is None:
        from orderflow.observability import traces

        _Process.role = role or _Process.role
        _Process.sdk = traces.Sdk(_Process.role)
        telemetry.register(traces.add_event)
        telemetry.trace_with(_Process.sdk.tracer)
    return _Process.sdk


def begin_web() -> None:
    """Begin to trace in a web worker, if traces are on."""
    if is_on():
        begin("web")


def instrument_requests() -> None:
    """Trace HTTP requests, if traces are on. Called before Django loads its middleware."""
    if is_on():
        from orderflow.observability import traces

        position = settings.MIDDLEWARE.index(AFTER) + 1
        traces.instrument_django(lambda: begin("web").provider, position=position, without=WITHOUT)


def _begin_worker(sender: Any, **_: Any) -> None:
    """
    Begin in a worker that runs tasks itself.

    The main process of a prefork pool begins only if it ends a task whose child was killed; not with gRPC, in
    which children that are forked later would hang.
    """
    from outbox.worker import sessions

    _Process.role = settings.POOL or "worker"
    if sessions.is_threaded(sender.pool_cls) or sessions.is_solo(sender.pool_cls):
        begin()
    elif settings.OTEL_EXPORTER_OTLP_PROTOCOL == "grpc":
        telemetry.trace_with(None)


def _begin_child(**_: Any) -> None:
    begin(settings.POOL or "worker")


def _after_fork() -> None:
    _Process.sdk = None
    telemetry.trace_with(_Late())


def _end(**_: Any) -> None:
    """Export what was recorded. Nothing is traced after that."""
    sdk, _Process.sdk = _Process.sdk, None
    if sdk is not None:
        telemetry.trace_with(None)
        sdk.end()
