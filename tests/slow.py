"""
The three sets of tests: the ordinary one, `slow` (with `--slow`) and `nightly` (with `--nightly`).

A test is `slow` if it takes more than about a second of a free core, or waits that long. Most of them start a
process of the project, which takes two seconds, try a whole corpus, or repeat a journey for every provider.
A test is `nightly` if it takes minutes. The ordinary set takes less than three minutes on two cores; it keeps a
quick test of every promise that a quick test can check. Where tests differ only in their parameters, the first
case stays in the ordinary set: see `but_first`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def but_first(cases: Iterable[Any], *, first: int = 1, others: str = "slow") -> list[Any]:
    """Mark all cases of a parameter but the first as slow, or as `others`; a tuple holds several values."""
    return [case if number < first else marked(case, others) for number, case in enumerate(cases)]


def marked(case: Any, mark: str) -> Any:
    """Return one case with a mark."""
    known = case if hasattr(case, "marks") else pytest.param(*(case if isinstance(case, tuple) else (case,)))
    return pytest.param(*known.values, id=known.id, marks=[*known.marks, getattr(pytest.mark, mark)])
