"""The command line of the benchmark. Needs neither Django nor Celery: `run.py` parses it first."""

from __future__ import annotations

import argparse

from benchmarks import pools

SCENARIOS = (
    "counts",
    "relay",
    "pipeline",
    "traces",
    "waiting",
    "consumers",
    "startup",
    "latency",
    "intake",
    "logins",
    "backlog",
    "writers",
    "relays",
    "notifications",
    "retention",
    "importing",
    "soak",
)
"""In the order in which they run; each is a module of `benchmarks.scenarios`."""

ROUNDS = 3
BROKERS = ("redis", "rabbitmq")


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's arguments to `parser`."""
    parser.add_argument(
        "scenarios",
        nargs="*",
        metavar="scenario",
        help=f"{', '.join(SCENARIOS)} (default: all except consumers and soak).",
    )
    parser.add_argument(
        "--quick", action="store_true", help="Small sizes, one round; fails only on counts and correctness."
    )
    parser.add_argument("--rounds", type=int, help=f"How often each contestant runs, in turns ({ROUNDS}).")
    parser.add_argument("--size", type=float, default=1.0, help="Multiplies the sizes of all scenarios (1.0).")
    parser.add_argument("--broker", choices=BROKERS, default="redis")
    parser.add_argument(
        "--pool",
        choices=pools.KINDS,
        default=pools.THREADS,
        help="The pools of OrderFlow's steps and e-mails (threads, as `run.py` starts them).",
    )
    parser.add_argument(
        "--only",
        metavar="SYSTEM",
        nargs="+",
        default=[],
        help="In `pipeline` and `waiting`: the systems whose names begin so, without targets.",
    )
    parser.add_argument(
        "--against", metavar="COMMIT", help="Also run OrderFlow as of this commit, in turns (`pipeline`)."
    )
    parser.add_argument(
        "--pictures", metavar="FOLDER", help="Folder for the pictures of `consumers` (.orderflow)."
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="Duration of the soak (10).")
    parser.add_argument(
        "--published", type=int, help="Number of published rows beside the backlog (1,000,000)."
    )
    parser.add_argument(
        "--report", metavar="FILE", help="File for the JSON report (.orderflow/benchmark.json)."
    )


def read(words: list[str], prog: str = "python3 run.py bench") -> argparse.Namespace:
    """Parse the command line; errors end the program with a sentence."""
    parser = argparse.ArgumentParser(prog=prog, description=__doc__)
    add_to(parser)
    arguments = parser.parse_args(words)
    if unknown := sorted(set(arguments.scenarios) - set(SCENARIOS)):
        parser.error(f"no such scenario: {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    if arguments.rounds is not None and arguments.rounds < 1:
        parser.error("--rounds must be at least 1")
    if arguments.size <= 0:
        parser.error("--size must be above 0")
    return arguments
