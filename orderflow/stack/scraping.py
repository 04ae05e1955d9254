"""
Where the processes of a stack serve their metrics: a free port for each, in a file that Prometheus reads.

The files have the form of `file_sd_configs`. A process keeps its name in them whatever its port is, so its
series continue when it is started again. They stay when the stack stops: what is gone is to be noticed.
"""

import contextlib
import json
from pathlib import Path

from orderflow.stack import ports
from orderflow.stack.checkout import state

EXPORTER, PROCESSES = "orderflow", "orderflow-processes"
"""The jobs of Prometheus: what is read from rows and the broker, and what processes count for themselves."""


def begin(folder: Path) -> None:
    """Forget the processes of an earlier stack."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.glob("*.json"):
        file.unlink()


def announce(folder: Path, process: str, *, job: str, port: int | None = None) -> int:
    """
    List a process that is about to start, and return the port on which it is to serve its metrics: a free one,
    unless one is given.
    """
    port = port or ports.choose(taken=_listed(folder))
    target = {"targets": [f"{ports.LOOPBACK}:{port}"], "labels": {"job": job, "instance": process}}
    state.write_private(folder / f"{process}.json", json.dumps([target]))
    return port


def _listed(folder: Path) -> set[int]:
    """Return the ports that are given away; their processes may not listen yet."""
    found = set()
    for file in folder.glob("*.json"):
        with contextlib.suppress(OSError, ValueError, LookupError):  # it is being written
            found.add(int(json.loads(file.read_text())[0]["targets"][0].rpartition(":")[2]))
    return found
