"""Runs the scenarios one after the other, prints their results, and writes the report."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import options as command_line

QUICK = ("counts", "relay", "pipeline", "waiting", "relays", "backlog")
"""A minute in total. The others are about times, or start more processes than a check in CI has seconds for."""

NOT_BY_DEFAULT = ("consumers", "soak")
"""Half an hour, or as long as `--minutes` says."""


def main(words: list[str]) -> int:
    """Run what the arguments select; return 1 if anything was incorrect or over its budget."""
    arguments = command_line.read(words)
    import django

    django.setup()

    from benchmarks import report
    from benchmarks.harness import Incorrect
    from benchmarks.processes import NotReady
    from benchmarks.scenarios import load

    began, results, problems = time.monotonic(), [], []
    for name in chosen(arguments):
        _print_progress(f"{name} ...")
        try:
            result = load(name)(options_of(arguments), lambda text: _print_progress(f"  {text}"))
        except (Incorrect, NotReady, TimeoutError) as failure:
            problems.append(f"{name}: {failure}")
            continue
        results.append(result)
        problems += [f"{name}: {failure}" for failure in result.failures]
        print(report.table(result), flush=True)
    path = Path(arguments.report or ".orderflow/benchmark.json")
    report.write(path, results, arguments=vars(arguments))
    if arguments.quick:
        print(
            "A quick run checks correctness and counts; it has too few orders for meaningful times.", flush=True
        )
    _print_progress(f"{time.monotonic() - began:.0f} s. Written to {path}")
    for problem in problems:
        print(f"FAILED  {problem}", flush=True)
    return 1 if problems else 0


def chosen(arguments: argparse.Namespace) -> list[str]:
    """The scenarios to run, in their own order."""
    if arguments.scenarios:
        return [name for name in command_line.SCENARIOS if name in arguments.scenarios]
    if arguments.quick:
        return list(QUICK)
    return [name for name in command_line.SCENARIOS if name not in NOT_BY_DEFAULT]


def options_of(arguments: argparse.Namespace) -> Any:
    """The options that scenarios receive."""
    from benchmarks.scenarios import Options

    return Options(
        quick=arguments.quick,
        rounds=arguments.rounds or (1 if arguments.quick else command_line.ROUNDS),
        rounds_named=arguments.rounds or 0,
        size=arguments.size,
        broker=arguments.broker,
        minutes=arguments.minutes,
        published=arguments.published or 1_000_000,
        pool=arguments.pool,
        only=tuple(arguments.only),
        against=arguments.against or "",
        pictures=Path(arguments.pictures or ".orderflow"),
    )


def _print_progress(text: str) -> None:
    """Progress goes to standard error, so that the tables can be piped."""
    print(text, file=sys.stderr, flush=True)
