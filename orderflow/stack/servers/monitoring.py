"""
Prometheus and Alertmanager for a stack, where they are installed: on loopback, with data in the state folder.

Their rules are those of `deploy/prometheus`; `orderflow.alerts.files` renders them with this stack's addresses.
"""

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

from orderflow.stack.checkout.folders import StackFolders
from orderflow.stack.ports import LOOPBACK, choose_upwards
from orderflow.stack.problem import Problem
from orderflow.stack.supervision import children, probes
from orderflow.stack.supervision.process_specs import Kind, Process, ProcessSpec, StopRank

PROMETHEUS = ("prometheus",)
ALERTMANAGER = ("prometheus-alertmanager", "alertmanager")
"""Names of the programs: Debian's first, then that of other packages."""

KEEP = ("--storage.tsdb.retention.time=7d", "--storage.tsdb.retention.size=512MB")
PROMETHEUS_PORT, ALERTMANAGER_PORT = 9090, 9093
"""The usual ports. Debian starts a service on each; then the next free one is taken."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Programs:
    """The two programs."""

    prometheus: Path
    alertmanager: Path


def programs() -> Programs:
    """
    Return the programs on PATH.

    Raises:
        Problem: if one is not installed.
    """
    found = {names: _on_path(names) for names in (PROMETHEUS, ALERTMANAGER)}
    prometheus, alertmanager = found[PROMETHEUS], found[ALERTMANAGER]
    if prometheus is None or alertmanager is None:
        missing = " and ".join(names[-1] for names, path in found.items() if path is None)
        raise Problem(
            f"Not installed here, or not on PATH: {missing}. Install both (Debian: apt-get install prometheus "
            "prometheus-alertmanager, macOS: brew install prometheus alertmanager), then run again.\n"
            "With containers instead: docker compose … --profile observe up; see docs/deployment.md."
        )
    return Programs(prometheus=prometheus, alertmanager=alertmanager)


def _on_path(names: Sequence[str]) -> Path | None:
    return next((Path(path) for path in map(shutil.which, names) if path), None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Monitoring:
    """
    The two servers of one checkout. Its stack lists in files what there is to scrape; Prometheus reads them
    again when they change.
    """

    folders: StackFolders
    programs: Programs
    port: int
    alertmanager_port: int

    @classmethod
    def beside(cls, folders: StackFolders) -> "Monitoring":
        """
        Return the servers for a stack, on free ports.

        Raises:
            Problem: if a program is not installed.
        """
        return cls(
            folders=folders,
            programs=programs(),
            port=choose_upwards(PROMETHEUS_PORT),
            alertmanager_port=choose_upwards(ALERTMANAGER_PORT),
        )

    @property
    def addresses(self) -> dict[str, str]:
        """Where a person finds what."""
        prometheus = f"http://{LOOPBACK}:{self.port}"
        return {
            "Prometheus": f"{prometheus}/graph",
            "targets": f"{prometheus}/targets",
            "alerts": f"{prometheus}/alerts",
            "Alertmanager": f"http://{LOOPBACK}:{self.alertmanager_port}",
        }

    def specs(self, *, after: tuple[str, ...] = ()) -> list[ProcessSpec]:
        """Return the processes for the supervisor."""
        return [
            self._spec("alertmanager", self._alertmanager(), self.alertmanager_port, after=after),
            self._spec("prometheus", self._prometheus(), self.port, after=after),
        ]

    def write(self) -> None:
        """Write the configuration of both. Alertmanager shows alerts on its page, and sends nothing."""
        from orderflow.alerts import catalogue, files  # the other commands of run.py do not need them

        addresses = files.Addresses(
            exporters=(),
            processes=(str(self.folders.targets / "*.json"),),
            alertmanager=f"{LOOPBACK}:{self.alertmanager_port}",
            runbooks=(self.folders.root / "docs" / "runbooks").as_uri(),
            receivers={catalogue.PAGE: "", catalogue.TICKET: ""},
        )
        files.write(self.folders.monitoring, addresses)
        self.folders.targets.mkdir(exist_ok=True)  # Prometheus watches it

    def _prometheus(self) -> list[str]:
        folder = self.folders.monitoring
        return [
            str(self.programs.prometheus),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'prometheus'}",
            *KEEP,
            f"--web.listen-address={LOOPBACK}:{self.port}",
            "--log.level=warn",
        ]

    def _alertmanager(self) -> list[str]:
        folder = self.folders.monitoring
        return [
            str(self.programs.alertmanager),
            f"--config.file={folder / 'alertmanager.yml'}",
            f"--storage.path={folder / 'alertmanager'}",
            f"--web.listen-address={LOOPBACK}:{self.alertmanager_port}",
            "--cluster.listen-address=",  # one alone: it talks to no other
            "--log.level=warn",
        ]

    def _spec(self, name: str, command: list[str], port: int, *, after: tuple[str, ...]) -> ProcessSpec:
        log = self.folders.logs / f"{name}.log"

        def start() -> Process:
            return children.start(command, environment={}, log=log, cwd=self.folders.monitoring)

        return ProcessSpec(
            name=name,
            kind=Kind.SERVICE,
            start=start,
            is_ready=probes.answers(f"http://{LOOPBACK}:{port}/-/ready"),
            log=log,
            after=after,
            early=False,
            stop_rank=StopRank.SANDBOX,
        )
