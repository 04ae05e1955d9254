"""Commands run in this process, with their output captured."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from django.core.management import CommandError, call_command


@pytest.fixture
def run(transactional_db):
    """Run a command; the result has `code`, `out` and `error`."""

    def run(*arguments: str, **options):
        out = io.StringIO()
        try:
            call_command(*arguments, stdout=out, stderr=io.StringIO(), **options)
        except CommandError as error:
            return SimpleNamespace(code=error.returncode, out=out.getvalue(), error=str(error))
        return SimpleNamespace(code=0, out=out.getvalue(), error="")

    return run
