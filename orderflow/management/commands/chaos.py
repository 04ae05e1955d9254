"""`manage.py chaos`; `run.py chaos` starts a stack for it."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from orderflow.chaos import options
from orderflow.chaos.drill import Drill, Plan
from orderflow.chaos.faults import schedule
from orderflow.chaos.own_stack import OwnStack
from orderflow.stack import sizing
from orders import adapters

REFUSAL = (
    "This drill places orders and injects faults. `python3 run.py chaos` starts a stack of its own for it. To "
    "run it against the stack of the settings, give --not-my-own-stack twice."
)
NO_SANDBOX = "STRIPE_API_BASE names no sandbox: the drill never places orders with a real provider."


class Command(BaseCommand):
    help = "Injects faults while orders are placed, and reports what was lost, duplicated or late."

    def add_arguments(self, parser: CommandParser) -> None:
        options.add_to(parser)
        # The folder with the state of the stack: `run.py chaos` passes it if the stack is the drill's own.
        parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)

    def handle(self, *args: Any, **options: Any) -> None:
        stack = self._stack(options["home"], confirmations=options["not_my_own_stack"])
        if settings.STRIPE_API_BASE.rstrip("/") in ("", adapters.STRIPE):
            raise CommandError(NO_SANDBOX)
        plan = self._plan(stack, **options)
        for fault in plan.schedule:
            self.stdout.write(f"  planned for {fault.start:5.1f} s: {fault}")
        for kind, reason in plan.left_out.items():
            self.stdout.write(f"  left out: {kind}: {reason}")
        report = Drill(plan, self.stdout.write).run()
        report.write(Path(options["report"] or settings.BASE_DIR / ".orderflow" / "chaos"))
        self.stdout.write("\n".join(report.lines()))
        if not report.passed:
            raise SystemExit(1)

    def _stack(self, home: Path | None, *, confirmations: int) -> OwnStack | None:
        if home is not None:
            stack = OwnStack(home)
            if not stack.is_there:
                raise CommandError(f"No stack runs in {home}.")
            return stack
        if confirmations < 2:
            raise CommandError(REFUSAL)
        return None

    def _plan(self, stack: OwnStack | None, **options: Any) -> Plan:
        wanted = [kind for kind in schedule.KINDS if kind in options["faults"]]
        nodes = stack.nodes if stack else 1
        kinds, left_out = schedule.possible(wanted, own_stack=stack is not None, nodes=nodes)
        broker = (
            options["broker"] if stack else ("redis" if settings.BROKER_URL.startswith("redis") else "rabbitmq")
        )
        words = ["--orders", options["orders"], "--duration", options["duration"], "--seed", options["seed"]]
        words += ["--broker", broker] if stack else ["--not-my-own-stack", "--not-my-own-stack"]
        words += ["--nodes", nodes] if nodes > 1 else []
        words += ["--pool", options["pool"]] if stack and options["pool"] != sizing.THREADS else []
        words += ["--faults", ",".join(wanted)] if len(wanted) < len(schedule.KINDS) else []
        return Plan(
            orders=options["orders"],
            duration=options["duration"],
            seed=options["seed"],
            broker=broker,
            settle=options["settle"],
            schedule=schedule.draw(kinds, seed=options["seed"], duration=options["duration"]),
            left_out=left_out,
            stack=stack,
            command=shlex.join(["python3", "run.py", "chaos", *map(str, words)]),
        )
