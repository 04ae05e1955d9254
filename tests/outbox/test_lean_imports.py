"""Packages can be imported without optional ones that they load and we do not use."""

from __future__ import annotations

import importlib
import sys

import pytest

from outbox import lean_imports


@pytest.fixture
def packages(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "optional_of_a_test.py").write_text("")
    (tmp_path / "greedy_of_a_test.py").write_text(
        "try:\n    import optional_of_a_test as found\nexcept ImportError:\n    found = None\n"
    )
    yield
    for name in ("optional_of_a_test", "greedy_of_a_test"):
        sys.modules.pop(name, None)


def load(name):
    return importlib.import_module(name)


def test_a_package_does_without_an_optional_one(packages):
    with lean_imports.without("optional_of_a_test"):
        assert load("greedy_of_a_test").found is None

    assert load("optional_of_a_test")  # it is there for everybody else


def test_a_package_that_is_used_already_stays(packages):
    used = load("optional_of_a_test")
    with lean_imports.without("optional_of_a_test"):
        assert load("greedy_of_a_test").found is used

    assert sys.modules["optional_of_a_test"] is used


def test_a_failed_import_hides_nothing_for_ever(packages):
    with pytest.raises(ZeroDivisionError), lean_imports.without("optional_of_a_test"):
        raise ZeroDivisionError

    assert load("optional_of_a_test")
