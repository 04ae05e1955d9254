"""The drill's own stack: the ids of its processes, and signals to them. No process is looked up by name."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from orderflow.chaos.faults import proxy
from orderflow.stack.checkout import state
from orderflow.stack.checkout.folders import StackFolders
from orderflow.stack.problem import Problem
from orderflow.stack.servers import rabbitmq
from orderflow.stack.supervision import children

PATIENCE = 20.0
"""Seconds a fault waits for a process that another fault has just ended."""


class NotRunning(Exception):
    """A fault has no target: the process is down and stays down."""


class OwnStack:
    """The stack whose state is in `folder`, where `run.py chaos` keeps it."""

    def __init__(self, folder: Path) -> None:
        self._folders = StackFolders(kept_in=folder)
        self._ports: dict[str, int] = json.loads(self._folders.ports.read_text())

    @property
    def is_there(self) -> bool:
        """Whether a supervisor is running this stack."""
        return state.running(self._folders) is not None

    @property
    def mail_url(self) -> str:
        """The address of the mail server's control API and ledger."""
        return f"http://{proxy.LOOPBACK}:{self._ports['smtp-control']}"

    def entry(self, name: str) -> dict[str, Any]:
        """The supervisor's last record of a process."""
        run = state.read(self._folders)
        return (run.processes if run else {}).get(name, {})

    def process(self, name: str) -> int:
        """
        Return the id of a running process, after waiting while it starts.

        Raises:
            NotRunning: if it does not come up.
        """
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            entry = self.entry(name)
            if entry.get("state") == "ready" and entry.get("pid"):
                return int(entry["pid"])
            time.sleep(0.1)
        raise NotRunning(f"{name} is not up")

    def has_recovered(self, name: str, *, instead_of: int) -> bool:
        """Whether a process is up again under another id."""
        entry = self.entry(name)
        return bool(entry.get("state") == "ready" and entry.get("pid") not in (None, instead_of))

    def signal_all(self, leader: int, number: signal.Signals) -> None:
        """Signal a process and its whole pool: they form one process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader, number)

    def signal_one(self, process: int, number: signal.Signals) -> None:
        """Signal one process."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)

    def set_clock(self, name: str, seconds: float) -> None:
        """Set the clock of a process to be `seconds` ahead, also in children that it starts later."""
        new = self._folders.clocks / f".{name}"
        new.write_text(str(seconds))
        new.replace(self._folders.clocks / name)  # atomically: the processes read it all the time

    def pool(self, leader: int) -> list[int]:
        """The processes of a worker's pool."""
        return children.children_of(leader)

    @property
    def nodes(self) -> int:
        """The number of nodes of its RabbitMQ."""
        return 1 + sum(name.startswith("broker-") for name in self._ports)

    def leader_of(self, queue: str) -> str:
        """
        Return the process name of the node that leads a quorum queue.

        Raises:
            NotRunning: if no node knows it.
        """
        names = rabbitmq.node_names(self.nodes)
        try:
            position = rabbitmq.leader_of(
                queue,
                folder=self._folders.state.parent,
                ports=[self._ports[name] for name in names],
                names_port=self._ports["rabbitmq-names"],
            )
        except Problem as problem:
            raise NotRunning(str(problem)) from problem
        return names[position]

    def network(self, **routes: dict[str, Any]) -> None:
        """Change the routes to the servers; see `proxy.Route.change`."""
        proxy.set_routes(self._ports["proxy-control"], **routes)
