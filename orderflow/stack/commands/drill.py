"""`run.py chaos`: a throwaway stack for fault injection; `manage.py chaos` injects the faults."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from orderflow.stack.checkout import environment, state
from orderflow.stack.checkout.folders import ServersFolder, StackFolders, servers_folder
from orderflow.stack.commands import fault_stack
from orderflow.stack.screen import Screen
from orderflow.stack.servers import throwaway
from orderflow.stack.supervision.supervisor import Interrupted, Supervisor

WHAT = "python3 run.py chaos"
NOT_NEEDED = ("flower", "mailbox", "jobs", "admin", "metrics")
"""Processes that no order of the drill needs; without them the others get more of the machine."""


def is_for_another_stack(words: Sequence[str]) -> bool:
    """Return whether the arguments name a stack other than the drill's own, or only ask for help."""
    return any(word in ("-h", "--help") or word.startswith("--not-my-own-stack") for word in words)


def run(folders: StackFolders, caller: Mapping[str, str], words: Sequence[str]) -> int:
    """
    Start a stack, inject faults into it, and return the exit code of the command that does.

    Raises:
        Problem: if the stack does not come up.
    """
    arguments = _read(words)
    report = _report(arguments, caller)
    folders.prepare()
    given = ("DATABASE_URL", "BROKER_URL", "REDIS_URL")
    caller = {name: value for name, value in caller.items() if name not in given}
    with servers_folder(folders, caller).throwaway() as place:
        own = StackFolders(root=folders.root, kept_in=place.path / "state")
        with state.hold(own, WHAT):
            try:
                return _drill(own, place, caller, arguments, [*words, "--report", str(report)])
            finally:
                fault_stack.keep_logs(own, report)


def _read(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line before anything is started, so that errors in it are reported at once."""
    from orderflow.chaos import options

    parser = argparse.ArgumentParser(prog=WHAT)
    options.add_to(parser)
    arguments = parser.parse_args(list(words))
    if arguments.nodes > 1 and arguments.broker != throwaway.RABBITMQ:
        parser.error("only --broker rabbitmq has nodes")
    return arguments


def _report(arguments: argparse.Namespace, caller: Mapping[str, str]) -> Path:
    from orderflow.chaos import options

    if arguments.report:
        return Path(environment.called_from(caller), arguments.report).resolve()
    return StackFolders().root / options.DEFAULT_REPORT


def _drill(
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
        nodes=arguments.nodes,
        pool=arguments.pool,
        without=NOT_NEEDED,
    )
    supervisor = Supervisor(stack.specs, report=screen.on_change, restarts=fault_stack.RESTARTS)
    print(f"The drill's own stack: {stack.label}", flush=True)
    screen.hold()  # from here on, processes are expected to die
    try:
        with supervisor:
            supervisor.start()
            supervisor.start_rest()
            screen.update(ready=True)
            print(f"Up after {screen.since_start():.1f} s.", flush=True)
            own_words = ["--home", str(own.state)]
            return supervisor.run_foreground(
                [sys.executable, str(own.root / "manage.py"), "chaos", "--skip-checks", *words, *own_words],
                environment=stack.direct,
                cwd=environment.called_from(caller),
                owns_interrupt=False,
            )
    except Interrupted:
        return 130
