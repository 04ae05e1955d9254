"""`manage.py alerts`; `run.py alerts` starts a stack, Prometheus and Alertmanager for it."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from orderflow.alerts.matrix import cases, options, page
from orderflow.alerts.matrix.faults import Target
from orderflow.alerts.matrix.matrix import Matrix, Result
from orderflow.alerts.matrix.watch import LOOPBACK, Watch
from orderflow.chaos.load.client import Client
from orderflow.chaos.own_stack import OwnStack
from orders.clients import tokens

REFUSAL = (
    "This injects faults. `python3 run.py alerts` starts a stack of its own for it; no other is ever used."
)


class Command(BaseCommand):
    help = "Proves the alerts: injects faults, compares which alerts fire, and follows their runbooks."

    def add_arguments(self, parser: CommandParser) -> None:
        options.add_to(parser)
        # The folder with the state of the stack, and the name of its servers: `run.py alerts` passes them.
        parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
        parser.add_argument("--label", default="", help=argparse.SUPPRESS)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            chosen = cases.chosen(options["cases"])
        except ValueError as unknown:
            raise CommandError(str(unknown)) from unknown
        if options["list"]:
            for case in chosen:
                self.stdout.write(f"{case.name:20} {', '.join(case.raises)}: {case.fault}")
            return
        if options["home"] is None:
            raise CommandError(REFUSAL)
        result = self._run(chosen, options)
        self.stdout.write("\n".join(page.lines(result)))
        if not result.passed:
            raise SystemExit(1)

    def _run(self, chosen: list[cases.Case], options: dict[str, Any]) -> Result:
        home: Path = options["home"]
        stack = OwnStack(home)
        if not stack.is_there:
            raise CommandError(f"No stack runs in {home}.")
        port = json.loads((home / "ports.json").read_text())
        _, secret = tokens.create("alerts", scopes=[tokens.WRITE])
        target = Target(
            stack=stack,
            held=home / "held",
            client=Client(f"{settings.WEB_URL}/api/v1", secret),
            broker_routes=("broker", "shared") if options["broker"] == "redis" else ("broker",),
        )
        watch = Watch(
            prometheus=f"http://{LOOPBACK}:{port['prometheus']}", receiver_port=port["alert-receiver"]
        )
        watch.start()
        try:
            matrix = Matrix(
                target,
                watch,
                factor=options["factor"],
                environment=os.environ,
                write=self.stdout.write,
                keep=_keeping(options),
            )
            return matrix.run(chosen, healthy=options["healthy"], rate=options["rate"], label=options["label"])
        finally:
            watch.stop()


def _keeping(options: dict[str, Any]) -> Callable[[Result], None]:
    """Return what writes a result, together with the earlier one if that was asked for."""
    report = Path(options["report"])
    report.mkdir(parents=True, exist_ok=True)
    written = report / "alerts.json"
    earlier = written.read_text() if options["add"] and written.exists() else ""

    def keep(result: Result) -> None:
        whole = page.with_earlier(result, earlier) if earlier else result
        written.write_text(page.as_json(whole))
        if options["page"]:
            page.write(whole, Path(options["page"]))

    return keep
