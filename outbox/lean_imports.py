"""Imports of packages that load more than is used here."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def without(*names: str) -> Iterator[None]:
    """
    Let packages be imported as if these optional ones, which they look for, were not installed.

    That is for features which are not used here, such as asynchronous requests. An optional package that has
    been imported before stays. Use it around imports at the top of a module only: other threads miss it too.
    """
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: not installed
    try:
        yield
    finally:
        for name in hidden:
            if sys.modules.get(name, name) is None:
                del sys.modules[name]
