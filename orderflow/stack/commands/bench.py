"""
`run.py bench`: throwaway servers for the benchmark, which runs in the foreground.

PostgreSQL syncs to disk as in production: without that, every contestant would appear faster than it is.
"""

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from orderflow.stack.checkout import environment
from orderflow.stack.checkout.folders import ServersFolder, StackFolders, servers_folder
from orderflow.stack.ports import choose
from orderflow.stack.processes import Table
from orderflow.stack.servers import throwaway
from orderflow.stack.supervision.supervisor import Supervisor

REPORT, LOGS = "benchmark.json", "benchmark-log"


def run(folders: StackFolders, caller: Mapping[str, str], words: Sequence[str]) -> int:
    """
    Run the benchmark on servers of its own and return its exit code.

    Raises:
        Problem: if the servers do not come up.
    """
    from benchmarks import options

    arguments = options.read(list(words))
    folders.prepare()
    report = (
        Path(environment.called_from(caller), arguments.report) if arguments.report else folders.state / REPORT
    )
    given = ("DATABASE_URL", "BROKER_URL", "REDIS_URL")
    caller = {name: value for name, value in caller.items() if name not in given}
    with servers_folder(folders, caller).throwaway() as place:
        own = StackFolders(root=folders.root, kept_in=place.path / "state")
        files = ["--report", str(report), "--pictures", str(_pictures(folders, caller, arguments.pictures))]
        code = _run(own, place, caller, arguments.broker, [*words, *files])
        if code:
            _keep_logs(own, folders.state / LOGS)
        return code


def _pictures(folders: StackFolders, caller: Mapping[str, str], named: str | None) -> Path:
    return Path(environment.called_from(caller), named) if named else folders.state


def _keep_logs(own: StackFolders, kept: Path) -> None:
    """Save the logs of a failed run before the throwaway folder is removed."""
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(own.logs, kept)
    print(f"The logs of all processes: {kept}", flush=True)


def _run(
    own: StackFolders, place: ServersFolder, caller: Mapping[str, str], broker: str, words: Sequence[str]
) -> int:
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
        folders=own, environment=variables, port=port, servers=tuple(spec.name for spec in chosen.specs)
    ).migrate()
    print(f"Servers of the benchmark: {chosen.label}", flush=True)
    with Supervisor([*chosen.specs, migrate]) as supervisor:
        supervisor.start()
        broker_process = supervisor.watched[chosen.broker].process
        return supervisor.run_foreground(
            [sys.executable, "-m", "benchmarks", *words],
            environment={**variables, "BENCHMARK_BROKER_PID": str(broker_process.pid if broker_process else 0)},
            cwd=own.root,
            owns_interrupt=True,
        )
