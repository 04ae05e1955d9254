"""Static files are looked up once per run, not once per client of every test."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

from whitenoise.middleware import WhiteNoiseMiddleware

find = WhiteNoiseMiddleware.add_files_from_finders


@contextlib.contextmanager
def found_once() -> Iterator[None]:
    """Inside the block, reuse the files that the first middleware found."""
    known: dict[tuple[str, object], dict[str, Any]] = {}

    def find_once(middleware: WhiteNoiseMiddleware) -> None:
        place = (middleware.static_prefix, middleware.max_age)
        if place not in known:
            before = dict(middleware.files)
            find(middleware)
            known[place] = {url: file for url, file in middleware.files.items() if url not in before}
        middleware.files.update(known[place])

    with mock.patch.object(WhiteNoiseMiddleware, "add_files_from_finders", find_once):
        yield
