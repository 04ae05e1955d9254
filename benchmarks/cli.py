"""Runs the scenarios one after the other, prints what they found, and writes it down."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import options as command_line

QUICK = ("counts", "relay", "pipeline", "relays", "backlog")
NOT_BY_DEFAULT = ("soak",)


def main(words: list[str]) -> int:
    """Run what the words ask for; 1 when anything was incorrect or over its budget."""
    asked = command_line.read(words)
    import django

    django.setup()

    from benchmarks import report
    from benchmarks.harness import Incorrect
    from benchmarks.processes import NotReady
    from benchmarks.scenarios import load

    began, results, problems = time.monotonic(), [], []
    for name in chosen(asked):
        _say(f"{name} ...")
        try:
            result = load(name)(options_of(asked), lambda text: _say(f"  {text}"))
        except (Incorrect, NotReady, TimeoutError) as failure:
            problems.append(f"{name}: {failure}")
            continue
        results.append(result)
        problems += [f"{name}: {failure}" for failure in result.failures]
        print(report.table(result), flush=True)
    path = Path(asked.report or ".orderflow/benchmark.json")
    report.write(path, results, arguments=vars(asked))
    if asked.quick:
        print("A quick run judges correctness and counts; its times are of too few orders.", flush=True)
    _say(f"{time.monotonic() - began:.0f} s. Written to {path}")
    for problem in problems:
        print(f"FAILED  {problem}", flush=True)
    return 1 if problems else 0


def chosen(asked: argparse.Namespace) -> list[str]:
    """The scenarios to run, in their own order."""
    if asked.scenarios:
        return [name for name in command_line.SCENARIOS if name in asked.scenarios]
    if asked.quick:
        return list(QUICK)
    return [name for name in command_line.SCENARIOS if name not in NOT_BY_DEFAULT]


def options_of(asked: argparse.Namespace) -> Any:
    """What the scenarios get to know of the command line."""
    from benchmarks.scenarios import Options

    return Options(
        quick=asked.quick,
        rounds=asked.rounds or (1 if asked.quick else command_line.ROUNDS),
        size=asked.size,
        broker=asked.broker,
        minutes=asked.minutes,
        published=asked.published or 1_000_000,
    )


def _say(text: str) -> None:
    """Progress is talk: it goes to standard error, so that the tables can be piped."""
    print(text, file=sys.stderr, flush=True)
