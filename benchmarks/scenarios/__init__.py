"""One file per scenario; each has `run(options, say)` and returns its result."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any

from benchmarks.harness import Result

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """The options of the command line."""

    quick: bool = False
    rounds: int = 3
    size: float = 1.0
    broker: str = "redis"
    minutes: float = 10.0
    published: int = 1_000_000

    def scaled(self, full: int, quick: int) -> int:
        """Return a scenario's size: the usual one times `--size`, or the quick one."""
        return quick if self.quick else max(1, round(full * self.size))


def load(name: str) -> Callable[[Options, Say], Result]:
    """Return the scenario with this name."""
    run: Any = importlib.import_module(f"benchmarks.scenarios.{name}").run
    return run  # type: ignore[no-any-return]
