"""
The processes of OrderFlow: their commands, the order in which they start, and how readiness is detected.

Processes that the first order needs start at once. The others follow, a few at a time, so that they do not take
the processors from the first orders.
"""

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from orderflow import providers
from orderflow.stack import machine, scraping, sizing
from orderflow.stack.checkout.folders import StackFolders
from orderflow.stack.ports import LOOPBACK
from orderflow.stack.supervision import children, probes
from orderflow.stack.supervision.process_specs import Kind, Process, ProcessSpec, StopRank

# A pool has the name of its queue; `sizing` has the number of its processes and their options.
EARLY_POOLS = ("orders", "relay")
LATER_POOLS = (*providers.CHANNELS, "jobs")
EARLY_SANDBOX = providers.ORDER_SERVERS
LATER_SANDBOX = providers.CHANNEL_SERVERS
# Flower keeps tasks in memory: 100,000 by default, which took 9 MB a minute at 5 orders/s for an hour.
FLOWER_TASKS = 5000
PROCESSORS = machine.cores()
# What a fault that keeps a process down needs: the process manager starts it, and it waits.
WAIT_WHILE_HELD = 'while [ -e "$0" ]; do sleep 0.1; done; exec "$@"'
# Celery's command, without the subcommands that are not used: less memory, and ready sooner.
CELERY = ("-m", "outbox")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """
    The processes of one stack. All of them wait for the processes named in `servers`.

    `migrated` means that the database is known to be up to date: then no process waits for the migration step.
    `orders_come_first` keeps one processor free while the later processes start. With at least two
    `orders_workers`, others take over the work of one that dies.
    """

    folders: StackFolders
    environment: Mapping[str, str]
    port: Mapping[str, int]
    servers: tuple[str, ...] = ()
    migrated: bool = False
    orders_come_first: bool = True
    orders_workers: int = 1
    clocks: Path | None = None
    """A folder with one file per process that sets how far its clock is off; None: all clocks are right."""
    held: Path | None = None
    """A folder; a process of which a file is there starts when that file is removed. None: no folder."""

    def specs(self) -> list[ProcessSpec]:
        """Return all of them, in start order. Prometheus finds in `folders.targets` those that have begun."""
        scraping.begin(self.folders.targets)
        early, later = list(self._early()), list(self._later())
        abreast = max(1, PROCESSORS - 1) if self.orders_come_first else PROCESSORS
        queue = [early[-1].name] * abreast + [spec.name for spec in later]
        return early + [
            dataclasses.replace(spec, after=(*spec.after, before), early=False)
            for spec, before in zip(later, queue, strict=False)
        ]

    def migrate(self) -> ProcessSpec:
        """Return the step that brings the database up to date."""
        after = tuple(name for name in self.servers if name in ("postgres", "proxy"))
        # Checking the settings as well would take a third longer; every other command does it.
        return self._manage("migrate", "migrate", "--noinput", "--skip-checks", after=after)

    def admin(self) -> ProcessSpec:
        """Return the step that creates the administrator, or restores the password that is shown."""
        return self._manage("admin", "ensure_admin", after=("migrate",))

    def _early(self) -> Iterator[ProcessSpec]:
        for name in EARLY_SANDBOX:
            yield self._sandbox(name)
        if not self.migrated:
            yield self.migrate()
        before = self.servers if self.migrated else ("migrate", *self.servers)
        yield from self._workers(EARLY_POOLS, after=before)

    def _later(self) -> Iterator[ProcessSpec]:
        yield self._celery(
            "beat",
            ["beat", "-l", "INFO"],
            ready=self._log_contains("beat", "beat: Starting"),
            job=scraping.PROCESSES,
        )
        yield self._web()
        for name in LATER_SANDBOX:
            yield self._sandbox(name)
        yield dataclasses.replace(self._sandbox("mailbox"), essential=False)
        check = [self.migrate(), self.admin()] if self.migrated else [self.admin()]
        pools = list(self._workers(LATER_POOLS))
        # If the database is known to be up to date, the check runs after everything that the user waits for.
        yield from (*pools, *check) if self.migrated else (*check, *pools)
        # Last, because it asks the workers for their names only once, at its start. Its password is not an
        # argument.
        listen = (f"--address={LOOPBACK}", f"--port={self.port['flower']}")
        page = probes.answers(f"http://{LOOPBACK}:{self.port['flower']}/")
        limits = (f"--max-tasks={FLOWER_TASKS}", "--read-only")
        flower = self._celery("flower", ["flower", *listen, *limits], ready=page, after=LATER_POOLS)
        yield dataclasses.replace(flower, essential=False)
        yield self._exporter()

    def _exporter(self) -> ProcessSpec:
        """Metrics of rows and broker. Orders do not need it, so it comes last."""
        port = self.port["metrics"]
        listen = ("--address", LOOPBACK, "--port", str(port))
        ready = self._log_contains("metrics", "Serving metrics")
        spec = self._python("metrics", ["manage.py", "metrics", *listen], ready=ready, after=LATER_POOLS)

        def start() -> Process:
            scraping.announce(self.folders.targets, spec.name, job=scraping.EXPORTER, port=port)
            return spec.start()

        return dataclasses.replace(spec, start=start, essential=False)

    def _web(self) -> ProcessSpec:
        bind = f"--bind={LOOPBACK}:{self.port['web']}"
        # Loading the project once, before forking, saves a second. Without the last option Gunicorn creates a
        # socket in the user's home folder.
        size = ("--threads=4", "--workers=2", "--preload", "--no-control-socket")
        livez = probes.answers(f"http://{LOOPBACK}:{self.port['web']}/livez")
        command = ["-m", "gunicorn", "orderflow.wsgi", bind, *size]
        return self._python("web", command, ready=livez, job=scraping.PROCESSES)

    def _sandbox(self, name: str) -> ProcessSpec:
        at = {name: f"http://{LOOPBACK}:{number}" for name, number in self.port.items()}
        port = self.port["smtp-control" if name == "smtp" else name]
        options = ["--port", str(port), "--data", str(self.folders.sandbox)]
        if name == "smtp":
            options += ["--smtp-port", str(self.port["smtp"])]
        if name == "mailbox":
            options += ["--smtp-url", at["smtp-control"], "--sms-url", at["sms"], "--push-url", at["push"]]
        return self._python(
            f"sandbox-{name}",
            ["-m", "orderflow.sandbox", name, *options],
            ready=probes.answers(f"http://{LOOPBACK}:{port}/_health"),
            stop_rank=StopRank.SANDBOX,
        )

    def _workers(self, queues: Sequence[str], *, after: tuple[str, ...] = ()) -> Iterator[ProcessSpec]:
        """The workers of these queues, of which the last one has the name of its queue."""
        sizes = sizing.sizes(self.environment)
        for queue in queues:
            size = sizes[queue]
            at_least = self.orders_workers if queue == "orders" else 1
            for number in range(max(size.processes, at_least), 0, -1):
                name = queue if number == 1 else f"{queue}-{number}"
                yield self._worker(name, queue, size.options, after=after)

    def _worker(
        self, name: str, queue: str, pool: Sequence[str], *, after: tuple[str, ...] = ()
    ) -> ProcessSpec:
        options = ["-n", f"{name}@%h", "-Q", queue, *pool, "--without-gossip", "--without-mingle", "-l", "INFO"]
        ready = self._log_contains(name, " ready.")
        return self._celery(
            name,
            ["worker", *options],
            ready=ready,
            after=after,
            extra={"ORDERFLOW_POOL": queue},
            job=scraping.PROCESSES,
        )

    def _log_contains(self, name: str, text: str) -> probes.LogContains:
        return probes.LogContains(text, self.folders.logs / f"{name}.log")

    def _manage(self, name: str, *words: str, after: tuple[str, ...]) -> ProcessSpec:
        return self._python(name, ["manage.py", *words], ready=probes.has_ended, after=after, kind=Kind.STEP)

    def _celery(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        ready: Callable[[Process], bool],
        after: tuple[str, ...] = (),
        extra: Mapping[str, str] = MappingProxyType({}),
        job: str = "",
    ) -> ProcessSpec:
        command = [*CELERY, "-A", "orderflow", *arguments]
        return self._python(name, command, ready=ready, after=after, extra=extra, job=job)

    def _python(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        ready: Callable[[Process], bool],
        after: tuple[str, ...] = (),
        extra: Mapping[str, str] = MappingProxyType({}),
        kind: Kind = Kind.SERVICE,
        stop_rank: StopRank = StopRank.APPLICATION,
        job: str = "",
    ) -> ProcessSpec:
        """Describe a process; with a `job`, Prometheus scrapes it."""
        log = self.folders.logs / f"{name}.log"

        def start() -> Process:
            if isinstance(ready, probes.LogContains):
                ready.skip_existing()
            command = [sys.executable, *arguments]
            if self.held:
                command = ["/bin/sh", "-c", WAIT_WHILE_HELD, str(self.held / name), *command]
            variables = {**self.environment, **extra}
            if self.clocks:
                variables["CLOCK_FILE"] = str(self.clocks / name)
            if job:
                variables["METRICS_PORT"] = str(scraping.announce(self.folders.targets, name, job=job))
            return children.start(command, environment=variables, log=log, cwd=self.folders.root)

        return ProcessSpec(
            name=name, kind=kind, start=start, is_ready=ready, log=log, after=after, stop_rank=stop_rank
        )
