"""The command-line options of a drill, for `run.py chaos` and `manage.py chaos` alike."""

from __future__ import annotations

import argparse

from orderflow.chaos.faults.schedule import FEWEST_NODES, KINDS
from orderflow.stack.sizing import PREFORK, THREADS

DEFAULT_REPORT = ".orderflow/chaos"


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the public options."""
    parser.add_argument("--orders", type=_positive, default=500, help="Number of orders to place (500).")
    parser.add_argument(
        "--duration", type=_positive, default=60, metavar="SECONDS", help="Time in which to place them (60)."
    )
    parser.add_argument("--seed", type=int, default=7, help="Same seed, same schedule and same orders (7).")
    parser.add_argument(
        "--faults",
        type=kinds,
        default=KINDS,
        metavar="A,B,…",
        help=f"Kinds of fault, separated by commas (all): {', '.join(KINDS)}.",
    )
    parser.add_argument(
        "--broker", choices=("redis", "rabbitmq"), default="redis", help="The broker of its stack (redis)."
    )
    parser.add_argument(
        "--pool",
        choices=(THREADS, PREFORK),
        default=THREADS,
        help=f"How the workers of its stack run tasks ({THREADS}).",
    )
    parser.add_argument(
        "--nodes",
        type=int,
        choices=(1, FEWEST_NODES),
        default=1,
        help="Number of nodes of its RabbitMQ (1); kill-leader needs a cluster.",
    )
    parser.add_argument(
        "--settle",
        type=_positive,
        default=240,
        metavar="SECONDS",
        help="Time for all work to finish after the last order (240).",
    )
    parser.add_argument(
        "--report", default="", metavar="DIR", help=f"Folder for the report ({DEFAULT_REPORT})."
    )
    parser.add_argument(
        "--not-my-own-stack",
        action="count",
        default=0,
        help="Given twice: use the stack of the settings, with the faults that need no own processes.",
    )


def kinds(text: str) -> tuple[str, ...]:
    """
    Parse a list of kinds of fault.

    Raises:
        argparse.ArgumentTypeError: if one is unknown.
    """
    named = tuple(name.strip() for name in text.split(",") if name.strip())
    if unknown := [name for name in named if name not in KINDS]:
        raise argparse.ArgumentTypeError(f"no such fault: {', '.join(unknown)}; there are {', '.join(KINDS)}")
    return named


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number
