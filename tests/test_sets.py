"""Which tests run in which set, and what each test process has for itself."""

from __future__ import annotations

import pytest

from tests import rabbitmq_hosts, slow


def marks(case):
    return [mark.name for mark in case.marks] if hasattr(case, "marks") else []


def test_all_cases_but_the_first_are_marked():
    cases = slow.but_first(["a", ("b", 1), pytest.param("c", id="third", marks=pytest.mark.nightly)])

    assert cases[0] == "a"
    assert [marks(case) for case in cases] == [[], ["slow"], ["nightly", "slow"]]
    assert [case.values for case in cases[1:]] == [("b", 1), ("c",)]
    assert [case.id for case in cases[1:]] == [None, "third"]
    assert [marks(case) for case in slow.but_first("abc", first=2, others="nightly")] == [[], [], ["nightly"]]


@pytest.mark.parametrize(
    ("given", "second"),
    [
        ("amqp://guest:guest@127.0.0.1:5672//", "amqp://guest:guest@127.0.0.1:5672/%2F-1"),
        ("amqp://me:p%40ss@rabbit/tests", "amqp://me:p%40ss@rabbit/tests-1"),
    ],
)
def test_the_first_process_uses_the_given_virtual_host_and_the_second_one_another(monkeypatch, given, second):
    monkeypatch.setenv(rabbitmq_hosts.VARIABLE, given)

    assert [rabbitmq_hosts.of_process(number) for number in range(2)] == [given, second]


def test_without_rabbitmq_no_process_has_a_virtual_host_of_its_own(monkeypatch):
    monkeypatch.setenv(rabbitmq_hosts.VARIABLE, "amqp://guest:guest@127.0.0.1:1//")

    assert not rabbitmq_hosts.make(2)
