"""One file per scenario; each has `run(options, say)` and returns its result."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import pools
from benchmarks.harness import Contestant, Result

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """The options of the command line."""

    quick: bool = False
    rounds: int = 3
    rounds_named: int = 0
    """What the command line says; 0: nothing. For scenarios too long to be repeated unasked."""
    size: float = 1.0
    broker: str = "redis"
    minutes: float = 10.0
    published: int = 1_000_000
    pool: str = pools.THREADS
    only: tuple[str, ...] = ()
    """The beginnings of the names of systems to run; empty: all."""
    against: str = ""
    """A commit to compare with; empty: none."""
    pictures: Path = Path(".orderflow")

    def chosen(self, contestants: Sequence[Contestant]) -> list[Contestant]:
        """Return the contestants to run, without a baseline that does not run."""
        found = [one for one in contestants if not self.only or one.name.startswith(self.only)]
        names = {one.name for one in found}
        return [one if one.baseline in names else dataclasses.replace(one, baseline="") for one in found]

    def scaled(self, full: int, quick: int) -> int:
        """Return a scenario's size: the usual one times `--size`, or the quick one."""
        return quick if self.quick else max(1, round(full * self.size))


def load(name: str) -> Callable[[Options, Say], Result]:
    """Return the scenario with this name."""
    run: Any = importlib.import_module(f"benchmarks.scenarios.{name}").run
    return run  # type: ignore[no-any-return]
