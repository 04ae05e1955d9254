"""The words on the command line of a drill, for `run.py chaos` and `manage.py chaos` alike."""

from __future__ import annotations

import argparse

from orderflow.chaos.faults.schedule import FEWEST_NODES, KINDS

DEFAULT_REPORT = ".orderflow/chaos"


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the options that people use."""
    parser.add_argument("--orders", type=_positive, default=500, help="How many orders are placed (500).")
    parser.add_argument(
        "--duration", type=_positive, default=60, metavar="SECONDS", help="How long they are placed (60)."
    )
    parser.add_argument("--seed", type=int, default=7, help="Same seed, same schedule and same orders (7).")
    parser.add_argument(
        "--faults",
        type=kinds,
        default=KINDS,
        metavar="A,B,…",
        help=f"Which kinds of fault, separated by commas (all): {', '.join(KINDS)}.",
    )
    parser.add_argument(
        "--broker", choices=("redis", "rabbitmq"), default="redis", help="Which broker its stack has (redis)."
    )
    parser.add_argument(
        "--nodes",
        type=int,
        choices=(1, FEWEST_NODES),
        default=1,
        help="How many nodes its RabbitMQ has (1); kill-leader needs a cluster.",
    )
    parser.add_argument(
        "--settle",
        type=_positive,
        default=240,
        metavar="SECONDS",
        help="How long everything may take to come to its end after the last order (240).",
    )
    parser.add_argument(
        "--report", default="", metavar="DIR", help=f"Where the report goes ({DEFAULT_REPORT})."
    )
    parser.add_argument(
        "--not-my-own-stack",
        action="count",
        default=0,
        help="Said twice: break the stack of the settings, with the faults that need no processes of ours.",
    )


def kinds(text: str) -> tuple[str, ...]:
    """
    Read a list of kinds of fault.

    Raises:
        argparse.ArgumentTypeError: if there is one that nobody knows.
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
