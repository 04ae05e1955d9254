"""The command-line options of the matrix, for `run.py alerts` and `manage.py alerts` alike."""

from __future__ import annotations

import argparse

from orderflow.stack.sizing import PREFORK, THREADS

DEFAULT_REPORT = ".orderflow/alerts"
FACTOR = 0.1
"""Five minutes become half a minute."""

HEALTHY = 600.0
"""Seconds, before they are shortened, in which no alert may fire while orders are placed without a fault."""


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the public options."""
    parser.add_argument(
        "--cases",
        type=names,
        default=(),
        metavar="A,B,…",
        help="Faults, separated by commas (all); see --list.",
    )
    parser.add_argument("--list", action="store_true", help="List the faults and their alerts; start nothing.")
    parser.add_argument(
        "--factor",
        type=float,
        default=FACTOR,
        help=f"Multiplies all durations of the rules ({FACTOR}).",
    )
    parser.add_argument(
        "--healthy",
        type=float,
        default=HEALTHY,
        metavar="SECONDS",
        help="Time without a fault, unshortened.",
    )
    parser.add_argument("--rate", type=float, default=2.0, help="Orders placed per second, all the time (2).")
    parser.add_argument("--broker", choices=("redis", "rabbitmq"), default="redis", help="The broker (redis).")
    parser.add_argument("--pool", choices=(THREADS, PREFORK), default=THREADS, help="How workers run tasks.")
    parser.add_argument(
        "--add", action="store_true", help="Keep the results of other faults from the last run in the report."
    )
    parser.add_argument("--page", default="", metavar="FILE", help="Also write docs/alerts.md, to this file.")
    parser.add_argument(
        "--report", default="", metavar="DIR", help=f"Folder for the result and all logs ({DEFAULT_REPORT})."
    )


def names(text: str) -> tuple[str, ...]:
    """Parse a list of names."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
