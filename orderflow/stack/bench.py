"""
`run.py bench`: throwaway servers for the benchmark, which runs in the foreground.

PostgreSQL writes to disk as in production: a commit that is not synced would flatter everybody.
"""

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from orderflow.stack import environment, homes
from orderflow.stack.servers import throwaway

from .homes import Home, ServersHome
from .ports import choose
from .processes import Table
from .supervisor import Supervisor

REPORT, LOGS = "benchmark.json", "benchmark-log"


def run(home: Home, caller: Mapping[str, str], words: Sequence[str]) -> int:
    """
    Run the benchmark on servers of its own and return its exit code.

    Raises:
        Problem: if the servers do not come up.
    """
    from benchmarks import options

    asked = options.read(list(words))
    home.prepare()
    report = Path(environment.called_from(caller), asked.report) if asked.report else home.state / REPORT
    given = ("DATABASE_URL", "BROKER_URL", "REDIS_URL")
    caller = {name: value for name, value in caller.items() if name not in given}
    with homes.servers_home(home, caller).throwaway() as place:
        own = Home(root=home.root, kept_in=place.path / "state")
        code = _run(own, place, caller, asked.broker, [*words, "--report", str(report)])
        if code:
            _keep_logs(own, home.state / LOGS)
        return code


def _keep_logs(own: Home, kept: Path) -> None:
    """Save the logs of a run in which something was wrong, before the throwaway home goes."""
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(own.logs, kept)
    print(f"The logs of all processes: {kept}", flush=True)


def _run(own: Home, place: ServersHome, caller: Mapping[str, str], broker: str, words: Sequence[str]) -> int:
    own.prepare()
    port: dict[str, int] = {}
    for name in throwaway.PORTS:
        port[name] = choose(taken=port.values())
    secret = environment.make_secrets()
    chosen = throwaway.choose(broker, place=place, logs=own.logs, port=port, secret=secret)
    variables = {
        **environment.base(caller),
        **chosen.addresses,
        "SECRET_KEY": secret["django"],
        "ORDERFLOW_ENV": "development",
        "ALLOWED_HOSTS": "127.0.0.1,localhost",
        "DJANGO_SETTINGS_MODULE": "benchmarks.settings",
        "BENCHMARK_FOLDER": str(own.logs),
        "PYTHONPATH": str(own.root),
    }
    migrate = Table(
        home=own, environment=variables, port=port, servers=tuple(unit.name for unit in chosen.units)
    ).migrate()
    print(f"Servers of the benchmark's own: {chosen.label}", flush=True)
    with Supervisor([*chosen.units, migrate]) as supervisor:
        supervisor.start()
        broker_process = supervisor.watched[chosen.broker].process
        return supervisor.run_foreground(
            [sys.executable, "-m", "benchmarks", *words],
            environment={**variables, "BENCHMARK_BROKER_PID": str(broker_process.pid if broker_process else 0)},
            cwd=own.root,
            owns_interrupt=True,
        )
