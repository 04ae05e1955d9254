"""Workers in containers have the pools that run.py starts on a small machine, and enough time and memory."""

from __future__ import annotations

import re

import pytest

import celeryconfig
from orderflow.stack import sizing
from orderflow.stack.processes import CELERY
from tests.deployment.compose import BASE, together
from tests.orderflow.test_memory import WORKER_MB
from tests.processes import ROOT

GIB = 2**30
SMALL = sizing.sizes({}, cores=2, memory=4 * GIB)
SERVICES = together(BASE)["services"]
WORKERS = {name: service for name, service in SERVICES.items() if "-Q" in service.get("command", [])}

UNITS = {"m": 2**20, "g": GIB}


def option(service, name, default=""):
    """Return the value of an option of a service's command."""
    words = service["command"]
    return words[words.index(name) + 1] if name in words else default


def size(text):
    return int(text[:-1]) * UNITS[text[-1]]


@pytest.mark.parametrize("name", WORKERS)
def test_a_container_runs_tasks_as_the_stack_does(name):
    service = WORKERS[name]
    options = SMALL[option(service, "-Q")].options
    wanted = dict(zip(options[::2], options[1::2], strict=True))

    assert option(service, "-P", "prefork") == wanted["-P"]
    assert option(service, "-c") == wanted.get("-c", "")


@pytest.mark.parametrize("name", [*WORKERS, "beat"])
def test_a_container_starts_the_command_that_needs_less_memory(name):
    assert SERVICES[name]["command"][:5] == ["python", *CELERY, "-A", "orderflow"]
    assert "python" not in SERVICES[name]["healthcheck"]["test"][1]


@pytest.mark.parametrize("name", [*WORKERS, "beat"])
def test_the_limit_leaves_a_worker_several_times_what_it_starts_with(name):
    has_children = name != "beat" and option(SERVICES[name], "-P", "prefork") == "prefork"
    processes = 2 if has_children else 1

    assert size(SERVICES[name]["mem_limit"]) >= 2.5 * processes * WORKER_MB * 2**20


@pytest.mark.parametrize("name", WORKERS)
def test_a_stopping_worker_may_finish_its_longest_task(name):
    grace = int(WORKERS[name]["stop_grace_period"].removesuffix("s"))

    assert grace >= celeryconfig.TIME_LIMIT + 5
    assert grace >= celeryconfig.worker_soft_shutdown_timeout + 5


def test_the_document_names_the_limits():
    text = (ROOT / "docs" / "deployment.md").read_text()

    limits = {service["mem_limit"] for service in WORKERS.values()}
    assert limits == set(re.findall(r"`mem_limit: (\w+)`", text))
    assert "`stop_grace_period: 30s`" in text
