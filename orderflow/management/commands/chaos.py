"""`manage.py chaos`; `run.py chaos` makes the stack for it."""

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
from orders.adapters import stripe

REFUSAL = (
    "This drill breaks what it runs on: it places orders and injects faults. `python3 run.py chaos` makes a "
    "stack of its own for that. To do it to the stack that the settings name, say --not-my-own-stack twice."
)
NO_SANDBOX = "STRIPE_API_BASE names no sandbox: the drill never places orders in front of a real provider."


class Command(BaseCommand):
    help = "Breaks a stack on purpose while orders are placed, and tells what was lost, doubled or late."

    def add_arguments(self, parser: CommandParser) -> None:
        options.add_to(parser)
        # How `run.py chaos` says that the stack is the drill's own: the folder with its state.
        parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)

    def handle(self, *args: Any, **options: Any) -> None:
        stack = self._stack(options["home"], told=options["not_my_own_stack"])
        if settings.STRIPE_API_BASE.rstrip("/") in ("", stripe.LIVE):
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

    def _stack(self, home: Path | None, *, told: int) -> OwnStack | None:
        if home is not None:
            stack = OwnStack(home)
            if not stack.is_there:
                raise CommandError(f"No stack runs in {home}.")
            return stack
        if told < 2:
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
