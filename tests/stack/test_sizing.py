"""The workers that run.py starts fit the machine, or what the environment says."""

from __future__ import annotations

import math

import pytest
from django.conf import settings

from orderflow import checks
from orderflow.stack import machine, sizing
from orderflow.stack.checkout.folders import StackFolders
from orderflow.stack.problem import Problem
from orderflow.stack.processes import Table
from outbox.worker import sessions
from tests.stack.test_drill import stack_environment

GIB = 2**30


def commands(folder, **environment):
    """Return the command of each worker, by its name."""
    port = dict.fromkeys(("web", "flower", "metrics", *stack_environment.SANDBOX), 1)
    table = Table(folders=StackFolders(folder), environment=environment, port=port)
    return {spec.name for spec in table.specs()}


def test_each_busy_queue_has_a_process_with_many_threads_on_a_small_machine():
    found = sizing.sizes({}, cores=2, memory=4 * GIB)

    assert found["orders"] == sizing.Size(("-P", "threads", "-c", "96"), processes=1)
    assert found["email"] == sizing.Size(("-P", "threads", "-c", "64"), processes=1)
    for queue in ("sms", "push"):
        assert found[queue] == sizing.Size(("-P", "threads", "-c", "32"), processes=1)
    assert found["relay"].options == ("-P", "solo")
    assert found["jobs"].options == ("-P", "prefork", "-c", "1")


@pytest.mark.parametrize(("cores", "steps", "emails"), [(1, 1, 1), (4, 2, 1), (8, 3, 2), (64, 3, 2)])
def test_more_processors_have_more_processes(cores, steps, emails):
    found = sizing.sizes({}, cores=cores, memory=64 * GIB)

    assert (found["orders"].processes, found["email"].processes) == (steps, emails)


def test_little_memory_allows_no_second_process():
    assert sizing.sizes({}, cores=64, memory=GIB)["orders"].processes == 1
    assert sizing.sizes({"WORKER_POOL": "prefork"}, cores=64, memory=GIB)["orders"].options[-1] == "1"


@pytest.mark.parametrize("kind", ["threads", "prefork"])
def test_the_sessions_of_the_largest_stack_fit_into_postgresqls_default(kind):
    opened = sizing.sessions({"WORKER_POOL": kind}, cores=1000, memory=1000 * GIB)

    assert 40 < opened <= math.floor(checks.MOST_SESSIONS * (100 - 3))


def test_the_sessions_of_a_stack_are_counted_as_workers_count_theirs():
    environment = {"DATABASE_POOL_SIZE": str(settings.OUTBOX_SESSION_POOL_SIZE)}
    opened = 0
    for name, size in sizing.sizes(environment, cores=8, memory=16 * GIB).items():
        options = dict(zip(size.options[::2], size.options[1::2], strict=True))
        number = int(options.get("-c", 1))
        opened += size.processes * sessions.most_of(options["-P"], number, has_relay=name == "relay")

    assert sizing.sessions(environment, cores=8, memory=16 * GIB) == opened + sizing.OF_WEB


def test_prefork_can_be_chosen():
    found = sizing.sizes({"WORKER_POOL": "prefork"}, cores=2, memory=8 * GIB)

    assert found["orders"].options == ("-P", "prefork", "-c", "4")
    assert found["email"].options == ("-P", "prefork", "-c", "2")
    assert {size.processes for size in found.values()} == {1}


def test_the_number_of_threads_can_be_chosen():
    found = sizing.sizes({"WORKER_THREADS": "8"})

    assert found["orders"].options == found["email"].options == ("-P", "threads", "-c", "8")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WORKER_POOL", "gevent"),
        ("WORKER_POOL", "Threads"),
        ("WORKER_THREADS", "0"),
        ("WORKER_THREADS", "many"),
        ("WORKER_THREADS", "-4"),
        ("WORKER_THREADS", "257"),
        ("WORKER_THREADS", "٣"),
    ],
    ids=range(7),
)
def test_a_wrong_choice_is_refused_and_named(name, value):
    with pytest.raises(Problem, match=f"{name} is "):
        sizing.sizes({name: value})


def test_several_processes_of_a_queue_are_named_and_all_are_started(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 8)
    monkeypatch.setattr(machine, "memory", lambda: 16 * GIB)

    names = commands(tmp_path)
    assert {"orders", "orders-2", "orders-3", "email", "email-2"} <= names
    assert not {"orders-4", "email-3", "sms-2"} & names


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Return a function that writes control groups, of which this process is in the first."""
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    monkeypatch.setattr(machine, "OWN_GROUPS", tmp_path / "own")

    def write(own, **limits):
        (tmp_path / "own").write_text(own)
        for path, text in limits.items():
            file = tmp_path.joinpath(*path.split("__"))
            file.parent.mkdir(parents=True, exist_ok=True)
            file.with_name(file.name.replace("_max", ".max").replace("cpu_cfs", "cpu.cfs")).write_text(text)

    return write


def test_the_limits_of_a_container_count(groups, monkeypatch):
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: set(range(16)))
    groups("0::/\n", cpu_max="150000 100000\n", memory_max=f"{GIB}\n")

    assert machine.cores() == 2
    assert machine.memory() == GIB


def test_the_limits_of_a_group_above_count(groups, monkeypatch):
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: set(range(16)))
    groups(
        "0::/slice/unit\n",
        slice__cpu_max="400000 100000\n",
        slice__memory_max=f"{GIB}\n",
        slice__unit__cpu_max="max 100000\n",
        slice__unit__memory_max="max\n",
    )

    assert machine.cores() == 4
    assert machine.memory() == GIB


def test_the_first_version_of_control_groups_is_read(groups, monkeypatch):
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: set(range(16)))
    groups(
        "5:cpu,cpuacct:/box\n7:memory:/box\n",
        cpu__box__cpu_cfs_quota_us="300000\n",
        cpu__box__cpu_cfs_period_us="100000\n",
        cpu__cpu_cfs_quota_us="-1\n",
        cpu__cpu_cfs_period_us="100000\n",
        memory__box__memory_max="junk",
        memory__memory_limit_in_bytes=f"{GIB}",
    )
    machine_memory = machine.CGROUPS / "memory" / "memory.limit_in_bytes"
    machine_memory.write_text(f"{GIB}\n")

    assert machine.cores() == 3
    assert machine.memory() == GIB


def test_without_control_groups_the_machine_counts(groups):
    assert machine.cores() >= 1
    assert machine.memory() > 2**26
