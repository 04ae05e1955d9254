"""The drill's own stack: which process is which, and how to end one. Nothing is ever looked up by name."""

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
"""Seconds a fault waits for a process that another one has just ended."""


class NotRunning(Exception):
    """A fault found nothing to break: the process is down already, and stays down."""


class OwnStack:
    """The stack whose state lies in `folder`, where `run.py chaos` keeps it."""

    def __init__(self, folder: Path) -> None:
        self._folders = StackFolders(kept_in=folder)
        self._ports: dict[str, int] = json.loads(self._folders.ports.read_text())

    @property
    def is_there(self) -> bool:
        """Whether a supervisor holds this stack right now."""
        return state.running(self._folders) is not None

    @property
    def mail_url(self) -> str:
        """The address of the mail server's page of switches, and of its ledger."""
        return f"http://{proxy.LOOPBACK}:{self._ports['smtp-control']}"

    def entry(self, name: str) -> dict[str, Any]:
        """What the supervisor last wrote about a process."""
        run = state.read(self._folders)
        return (run.processes if run else {}).get(name, {})

    def process(self, name: str) -> int:
        """
        Return the id of a process that is up, waiting while it starts.

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

    def is_back(self, name: str, *, instead_of: int) -> bool:
        """Whether a process is up again under another id."""
        entry = self.entry(name)
        return bool(entry.get("state") == "ready" and entry.get("pid") not in (None, instead_of))

    def signal_all(self, leader: int, number: signal.Signals) -> None:
        """Signal a process and all of its pool: they form one group, which the supervisor made for them."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader, number)

    def signal_one(self, process: int, number: signal.Signals) -> None:
        """Signal one process."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)

    def set_clock(self, name: str, seconds: float) -> None:
        """Let the clock of a unit be `seconds` ahead, also in processes that it starts later."""
        new = self._folders.clocks / f".{name}"
        new.write_text(str(seconds))
        new.replace(self._folders.clocks / name)  # at once: the processes read it all the time

    def pool(self, leader: int) -> list[int]:
        """The processes of a worker's pool."""
        return children.children_of(leader)

    @property
    def nodes(self) -> int:
        """How many nodes its RabbitMQ has."""
        return 1 + sum(name.startswith("broker-") for name in self._ports)

    def leader_of(self, queue: str) -> str:
        """
        The node of the cluster that leads a quorum queue, by its unit's name.

        Raises:
            NotRunning: if nobody knows.
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

    def network(self, **planned_orders: dict[str, Any]) -> None:
        """Change what the connections to the servers are like; see `proxy.Route.change`."""
        proxy.tell(self._ports["proxy-control"], **planned_orders)
