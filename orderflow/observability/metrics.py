"""
The metrics of one main process, and the port on which Prometheus reads them.

Only this module imports Prometheus' client, and only processes with `METRICS_PORT` import this module: it takes
2 MB. Totals are in the memory of the main process; its children hand their counts over (see `datagrams`), so
neither their end nor their death changes a total.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from orderflow.observability import children
from orderflow.observability import metric_names as names
from orderflow.observability.counting import Count
from orderflow.observability.metric_names import Kind, Metric

TRY_AGAIN = 5.0
"""Seconds until a port that is in use is tried again: the process that has it may be about to end."""

logger = logging.getLogger(__name__)

prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each counter


class Metrics:
    """The metrics of this process and, as far as they hand over their counts, of its children."""

    def __init__(self, *, pool: str = "", usage: Callable[[], tuple[int, int]] | None = None) -> None:
        """`usage` returns how many tasks run in this process's pool, and how many can."""
        self.registry = CollectorRegistry()
        self._made = {metric.name: _make(metric, self.registry) for metric in names.COUNTED}
        self._series: dict[tuple[str, tuple[str, ...]], Callable[[float], None]] = {}
        for collector in (
            prometheus_client.ProcessCollector,
            prometheus_client.PlatformCollector,
            prometheus_client.GCCollector,
        ):
            collector(registry=self.registry)
        self.registry.register(_Measured(pool, usage))

    def add(self, counts: Sequence[Count]) -> None:
        """Add what a signal counts."""
        for metric, labels, value in counts:
            add = self._series.get((metric, labels))
            if add is None:
                add = self._begin(metric, labels)
            add(value)

    def lose(self, signals: int) -> None:
        """Count signals that a child could not hand over."""
        self.add([Count(names.SIGNALS_LOST.name, (), float(signals))])

    def _begin(self, name: str, labels: tuple[str, ...]) -> Callable[[float], None]:
        """
        Begin a series, and those of the other outcomes at 0.

        Prometheus sees no increase in a series that begins with its first count.
        """
        metric, made = names.BY_NAME[name], self._made[name]
        for outcome in metric.outcomes:
            made.labels(*labels[:-1], outcome)
        series = made.labels(*labels) if labels else made
        add = series.observe if metric.kind is Kind.HISTOGRAM else series.inc
        return self._series.setdefault((name, labels), add)


def _make(metric: Metric, registry: CollectorRegistry) -> Any:
    if metric.kind is Kind.HISTOGRAM:
        return Histogram(
            metric.name, metric.help, labelnames=metric.labels, buckets=metric.bounds, registry=registry
        )
    return Counter(metric.name, metric.help, labelnames=metric.labels, registry=registry)


class _Measured:
    """Reads what is measured when somebody asks: the use of the pool, and the children."""

    def __init__(self, pool: str, usage: Callable[[], tuple[int, int]] | None) -> None:
        self._pool, self._usage = pool, usage
        self._most_seconds = 0.0

    def collect(self) -> Iterator[Any]:
        if self._usage is not None:
            for metric, value in zip((names.POOL_BUSY, names.POOL_SIZE), self._usage(), strict=True):
                family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
                family.add_metric([self._pool], value)
                yield family
        now = children.read()
        yield GaugeMetricFamily(names.CHILDREN.name, names.CHILDREN.help, value=now.processes)
        yield GaugeMetricFamily(names.CHILDREN_MEMORY.name, names.CHILDREN_MEMORY.help, value=now.memory)
        # Prometheus takes a counter that falls, even by a tick, for one that began again at 0.
        self._most_seconds = max(self._most_seconds, now.seconds)
        yield CounterMetricFamily(names.CHILDREN_CPU.name, names.CHILDREN_CPU.help, value=self._most_seconds)


class Server:
    """Serves the metrics on a port, from threads. Children close it when they are forked."""

    def __init__(self, metrics: Metrics, *, address: str, port: int) -> None:
        self._registry, self._address, self._port = metrics.registry, address, port
        self._stopping = threading.Event()
        self._server: Any = None

    def start(self) -> None:
        """Serve; if the port is in use, log that and try again in a thread."""
        if not self._serve():
            threading.Thread(target=self._try_again, name="metrics-port", daemon=True).start()

    def stop(self) -> None:
        """Stop serving."""
        self._stopping.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def close_in_child(self) -> None:
        """Close the child's copy of the socket: it would keep the port when this process is killed."""
        self._stopping.set()
        if self._server is not None:
            self._server.socket.close()

    def _try_again(self) -> None:
        while not self._stopping.wait(TRY_AGAIN):
            if self._serve(is_first=False):
                return

    def _serve(self, *, is_first: bool = True) -> bool:
        try:
            self._server, _ = prometheus_client.start_http_server(
                self._port, addr=self._address, registry=self._registry
            )
        except OSError as error:
            if is_first:
                logger.error(
                    "No metrics are served: %s port %d cannot be used (%s). Everything else works; the port is "
                    "tried again every %g s. Give each process of a machine a METRICS_PORT of its own.",
                    self._address,
                    self._port,
                    error.strerror or error,
                    TRY_AGAIN,
                )
            return False
        if not is_first:
            logger.warning("Metrics are served on %s port %d now", self._address, self._port)
        return True
