"""
Accepting orders: sixteen concurrent writers, and HTTP with 1, 8 and 32 clients; with and without the broker.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType
from typing import Any

from benchmarks import measure, processes, systems, tables
from benchmarks.harness import Contestant, Incorrect, Result, Sample, alternate, percentile
from benchmarks.processes import Spec
from benchmarks.scenarios import Options, Say
from benchmarks.systems import RELAY
from orderflow.stack import ports
from orderflow.stack.supervision import probes
from orders.clients import tokens
from orders.models import Order

WRITERS = 16
CLIENTS = (1, 8, 32)
PATHS = {"only": "/baselines/only", "naive": "/baselines/naive", "orderflow": "/api/v1/orders"}


NO_CHANGE: Mapping[str, str] = MappingProxyType({})


def run(options: Options, say: Say) -> Result:
    """Compare writers with naive ones, and requests with those without outbox and idempotency record."""
    result = Result(scenario="intake", unit="orders/s")
    orders = options.scaled(3_000, 160)
    down = broker_down()
    result.rows = alternate(
        [
            Contestant(name="naive", run=lambda: written("naive", orders)),
            Contestant(name="only", run=lambda: written("only", orders), baseline="naive"),
            Contestant(name="orderflow", run=lambda: written("orderflow", orders), baseline="naive"),
            Contestant(
                name="orderflow, relay beside",
                run=lambda: written("orderflow", orders, relay=True),
                baseline="naive",
            ),
            Contestant(
                name="orderflow, broker down",
                run=lambda: written("orderflow", orders, environment=down),
                baseline="orderflow",
            ),
        ],
        rounds=options.rounds,
        say=say,
    )
    result.judge("at least 2 x the commits/s of naive", result.row("orderflow").ratio or 0.0, least=2.0)
    slowed = result.row("orderflow, broker down").ratio or 0.0
    result.judge("no slower while the broker is down, ratio", slowed, least=0.95)
    requests = options.scaled(1_500, 64)
    for clients in (CLIENTS[0], CLIENTS[-1]) if options.quick else CLIENTS:
        _over_http(result, requests, clients, down, options, say)
    return result


def _over_http(
    result: Result, requests: int, clients: int, down: dict[str, str], options: Options, say: Say
) -> None:
    def named(what: str) -> str:
        return f"http {clients}, {what}"

    contestants = [
        Contestant(name=named("only"), run=lambda: requested("only", requests, clients)),
        Contestant(
            name=named("naive"), run=lambda: requested("naive", requests, clients), baseline=named("only")
        ),
        Contestant(
            name=named("orderflow"),
            run=lambda: requested("orderflow", requests, clients),
            baseline=named("only"),
        ),
        Contestant(
            name=named("broker down"),
            run=lambda: requested("orderflow", requests, clients, environment=down),
            baseline=named("orderflow"),
        ),
    ]
    result.rows += alternate(contestants, rounds=options.rounds, say=say)
    only, ours = result.row(named("only")), result.row(named("orderflow"))
    slower = ours.counts["ms median"] / only.counts["ms median"]
    result.judge(f"http {clients}: at most 25 % slower than without outbox and key record", slower, most=1.25)
    slowed = result.row(named("broker down")).ratio or 0.0
    result.judge(f"http {clients}: no slower while the broker is down, ratio", slowed, least=0.95)


def broker_down() -> dict[str, str]:
    """The environment of a process whose broker and shared state do not respond."""
    nowhere = f"redis://127.0.0.1:{ports.choose()}/0"
    return {"BROKER_URL": nowhere, "REDIS_URL": nowhere}


def written(
    writer: str, orders: int, *, relay: bool = False, environment: Mapping[str, str] = NO_CHANGE
) -> Sample:
    """
    Place orders in sixteen concurrent processes.

    Raises:
        Incorrect: if not all of them exist afterwards.
    """
    tables.clean()
    with processes.running([RELAY] if relay else []) as groups:
        meter = measure.Meter(systems.servers_and(groups))
        report = systems.place(writer, orders, writers=WRITERS, environment=environment)
        cpu, _ = meter.read()
    _check(orders)
    return Sample(
        value=orders / report["seconds"],
        units=orders,
        cpu={"writers": report["cpu"], **cpu},
        counts={"ms median": 1000 * report["median_seconds"]},
    )


def requested(
    kind: str,
    requests: int,
    clients: int,
    *,
    environment: Mapping[str, str] = NO_CHANGE,
    beside: Callable[[str], AbstractContextManager[None]] = lambda address: nullcontext(),
) -> Sample:
    """
    Place orders by HTTP requests to a separate web server, as `run.py` starts it.

    `beside` does something else to the server at the given host and port meanwhile.

    Raises:
        Incorrect: if a response is not 201, or an order is missing.
    """
    tables.clean()
    _, secret = tokens.create("benchmark", scopes=[tokens.WRITE])
    port, each = ports.choose(), max(1, requests // clients)
    address = f"http://127.0.0.1:{port}"
    ready = probes.answers(f"{address}/livez")
    with processes.running([web(port, environment)]) as groups:
        processes.until(lambda: ready(_NO_PROCESS), within=30, what="the web server answers")
        _run_clients(f"{address}{PATHS[kind]}", secret, 4 * clients, clients)  # warm
        meter = measure.Meter(systems.servers_and(groups))
        with beside(f"127.0.0.1:{port}"):
            report = _run_clients(f"{address}{PATHS[kind]}", secret, each * clients, clients)
        cpu, _ = meter.read()
    _check((each + 4) * clients)
    times = [1000 * took for took in report["times"]]
    return Sample(
        value=len(times) / report["seconds"],
        units=len(times),
        cpu=cpu,
        counts={"ms median": percentile(times, 0.5), "ms p99": percentile(times, 0.99)},
    )


_NO_PROCESS: Any = None


def web(port: int, environment: Mapping[str, str] = NO_CHANGE) -> Spec:
    """The web server, as `run.py` starts it."""
    size = ("--threads=4", "--workers=2", "--preload", "--no-control-socket")
    command = ["-m", "gunicorn", "orderflow.wsgi", f"--bind=127.0.0.1:{port}", *size]
    return Spec(name="web", command=command, environment=environment)


def _run_clients(url: str, token: str, requests: int, clients: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load.clients", url, token, str(requests), str(clients)],
        cwd=processes.ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Incorrect(f"a client failed: {done.stderr[-2000:]}")
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def _check(orders: int) -> None:
    if (count := Order.objects.count()) != orders:
        raise Incorrect(f"{orders} orders were placed, {count} are there")
