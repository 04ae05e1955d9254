"""The check of adapters at the start finds wrong paths without loading any provider's library."""

from __future__ import annotations

import sys

import pytest

from orderflow import checks
from orderflow.configuration import dotted_paths


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """Return a function that writes a module to be found, and not imported yet."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(text)

    yield write
    for name in ("adapter_for_tests", "broken_adapter_for_tests"):
        sys.modules.pop(name, None)


def test_a_path_is_judged_without_an_import(modules):
    modules("adapter_for_tests", "import no_such_library\n\nclass Gateway: ...\n")

    assert dotted_paths.complaint("adapter_for_tests.Gateway") == ""
    assert "Gatway" in dotted_paths.complaint("adapter_for_tests.Gatway")
    assert "adapter_for_tests" not in sys.modules


@pytest.mark.parametrize("path", ["Gateway", "orders.adapters.no_such.Gateway", "no_such.adapters.Gateway", ""])
def test_a_path_that_leads_nowhere_is_found(path):
    assert dotted_paths.complaint(path)


def test_an_adapter_that_is_no_python_is_found(modules):
    modules("broken_adapter_for_tests", "class Gateway(:\n")

    assert "invalid syntax" in dotted_paths.complaint("broken_adapter_for_tests.Gateway")


def test_what_a_module_takes_over_from_another_counts(modules):
    modules("adapter_for_tests", "from orders.adapters.stripe import *\n")

    assert dotted_paths.complaint("adapter_for_tests.StripeGateway") == ""


def test_the_command_also_imports_the_adapters(modules, settings):
    modules("adapter_for_tests", "import no_such_library\n\nclass Gateway: ...\n")
    settings.PAYMENT_GATEWAY = "adapter_for_tests.Gateway"

    [error] = checks.check_adapters()
    assert error.id == "orderflow.E004"
    assert "no_such_library" in error.msg


def test_a_wrong_adapter_is_reported_once(settings):
    settings.PAYMENT_GATEWAY = "orders.adapters.no_such.Gateway"

    found = [*checks.check_settings(), *checks.check_adapters()]
    assert len([error for error in found if error.id == "orderflow.E004"]) == 1
