"""Reads compose files together, as Compose does, as far as these files need it."""

from __future__ import annotations

import copy
import functools
from typing import Any

import yaml

from tests.processes import ROOT

BASE = "docker-compose.yml"
OTHERS = ("docker-compose.sandbox.yml", "docker-compose.production.yml", "docker-compose.rabbitmq.yml")
FILES = (BASE, *OTHERS)


@functools.cache
def read(name: str) -> dict[str, Any]:
    """Return one file, with its anchors resolved."""
    found: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return found


def together(*names: str) -> dict[str, Any]:
    """Combine several files as Compose does: maps are merged, and lists are appended."""
    merged: dict[str, Any] = {}
    for name in names:
        merged = _merge(merged, read(name))
    return merged


def _merge(old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        out = copy.deepcopy(old)
        for key, value in new.items():
            replaced = key in ("command", "test") or key not in out
            out[key] = copy.deepcopy(value) if replaced else _merge(out[key], value)
        return out
    if isinstance(old, list) and isinstance(new, list):
        return [*old, *(item for item in new if item not in old)]
    return new
