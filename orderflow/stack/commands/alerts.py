"""
`run.py alerts`: a throwaway stack with Prometheus and Alertmanager, whose alerts are proved by faults.

`manage.py alerts` injects the faults and runs in the foreground.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from orderflow.stack.checkout import environment, state
from orderflow.stack.checkout.folders import ServersFolder, StackFolders, servers_folder
from orderflow.stack.commands import fault_stack
from orderflow.stack.ports import LOOPBACK
from orderflow.stack.screen import Screen
from orderflow.stack.servers.monitoring import Monitoring, programs
from orderflow.stack.supervision.supervisor import Interrupted, Supervisor

WHAT = "python3 run.py alerts"
NOT_NEEDED = ("flower", "mailbox", "admin")
PORTS = ("prometheus", "alertmanager", "alert-receiver")

SIZE_LIMIT = 200_000_000
"""Bytes: `DATABASE_SIZE_LIMIT` of the stack, which starts with some 20 MB."""

OBJECTIVE, HEARTBEAT = 60.0, 10.0
"""Seconds within which an order is to be final, and between two heartbeats: the defaults of the settings."""


def only_asks(words: Sequence[str]) -> bool:
    """Return whether the arguments only ask for help, or for the list of faults."""
    return any(word in ("-h", "--help", "--list") for word in words)


def run(folders: StackFolders, caller: Mapping[str, str], words: Sequence[str]) -> int:
    """
    Start a stack and its observers, prove the alerts, and return the exit code of the command that does.

    Raises:
        Problem: if the stack does not come up, or a program is not installed.
    """
    from orderflow.alerts.matrix import options

    parser = argparse.ArgumentParser(prog=WHAT)
    options.add_to(parser)
    arguments = parser.parse_args(list(words))
    programs()  # before anything is started
    folder = environment.called_from(caller)
    report = Path(folder, arguments.report or folders.root / options.DEFAULT_REPORT).resolve()
    folders.prepare()
    given = ("DATABASE_URL", "BROKER_URL", "REDIS_URL")
    caller = {name: value for name, value in caller.items() if name not in given}
    with servers_folder(folders, caller).throwaway() as place:
        own = StackFolders(root=folders.root, kept_in=place.path / "state")
        with state.hold(own, WHAT):
            try:
                return _prove(own, place, caller, arguments, [*words, "--report", str(report)])
            finally:
                fault_stack.keep_logs(own, report)


def _prove(
    own: StackFolders,
    place: ServersFolder,
    caller: Mapping[str, str],
    arguments: argparse.Namespace,
    words: Sequence[str],
) -> int:
    screen = Screen(own, state.Run(pid=os.getpid(), what=WHAT, started_at=environment.called_at(caller)))
    stack = fault_stack.describe(
        own,
        place,
        caller,
        broker=arguments.broker,
        pool=arguments.pool,
        without=NOT_NEEDED,
        settings=_settings(arguments.factor),
        more_ports=PORTS,
    )
    monitoring = Monitoring(
        folders=own,
        programs=programs(),
        port=stack.port["prometheus"],
        alertmanager_port=stack.port["alertmanager"],
    )
    _write_configuration(monitoring, stack.port["alert-receiver"], arguments.factor)
    supervisor = Supervisor(
        [*stack.specs, *monitoring.specs(after=("web",))],
        report=screen.on_change,
        restarts=fault_stack.RESTARTS,
    )
    print(f"The stack whose alerts are proved: {stack.label}", flush=True)
    screen.hold()  # from here on, processes are expected to die
    try:
        with supervisor:
            supervisor.start()
            supervisor.start_rest()
            screen.update(ready=True)
            print(f"Up after {screen.since_start():.1f} s.", flush=True)
            own_words = ["--home", str(own.state), "--label", stack.label]
            return supervisor.run_foreground(
                [sys.executable, str(own.root / "manage.py"), "alerts", "--skip-checks", *words, *own_words],
                environment=stack.direct,
                cwd=environment.called_from(caller),
                owns_interrupt=False,
            )
    except Interrupted:
        return 130


def _settings(factor: float) -> dict[str, str]:
    """The settings whose times the factor shortens, as it does those of the rules."""
    return {
        "ORDER_OBJECTIVE_SECONDS": f"{OBJECTIVE * factor:g}",
        "HEARTBEAT_SECONDS": f"{HEARTBEAT * factor:g}",
        "DATABASE_SIZE_LIMIT": str(SIZE_LIMIT),
    }


def _write_configuration(monitoring: Monitoring, receiver: int, factor: float) -> None:
    from orderflow.alerts import catalogue, files

    webhook = f"http://{LOOPBACK}:{receiver}"
    addresses = files.Addresses(
        exporters=(),
        processes=(str(monitoring.folders.targets / "*.json"),),
        alertmanager=f"{LOOPBACK}:{monitoring.alertmanager_port}",
        runbooks=(monitoring.folders.root / "docs" / "runbooks").as_uri(),
        receivers={severity: f"{webhook}/{severity}" for severity in (catalogue.PAGE, catalogue.TICKET)},
    )
    files.write(monitoring.folders.monitoring, addresses, factor=factor)
