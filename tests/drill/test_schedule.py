"""The faults of a drill: drawn from the seed, all kinds, within their limits."""

import argparse

import pytest

from orderflow.chaos import options
from orderflow.chaos.faults import schedule
from orderflow.chaos.faults.schedule import KINDS, TRAITS
from orderflow.chaos.load import planned_orders


def test_the_same_seed_draws_the_same_faults_and_the_same_orders():
    assert schedule.draw(KINDS, seed=7, duration=60) == schedule.draw(KINDS, seed=7, duration=60)
    assert planned_orders.draw(100, seed=7, run="a") == planned_orders.draw(100, seed=7, run="a")


def test_another_seed_draws_others():
    assert schedule.draw(KINDS, seed=7, duration=60) != schedule.draw(KINDS, seed=8, duration=60)
    assert planned_orders.draw(100, seed=7, run="a") != planned_orders.draw(100, seed=8, run="a")


@pytest.mark.parametrize("duration", [10, 60, 900])
def test_every_kind_is_injected_however_short_the_drill_is(duration):
    drawn = schedule.draw(KINDS, seed=3, duration=duration)
    assert {fault.kind for fault in drawn} == set(KINDS)
    assert all(0 < fault.start < duration for fault in drawn)


def test_no_kind_is_injected_twice_before_all_were_injected_once():
    drawn = schedule.draw(KINDS, seed=3, duration=900)
    assert len(drawn) > 3 * len(KINDS)
    assert {fault.kind for fault in drawn[: len(KINDS)]} == set(KINDS)


def test_the_parameters_of_a_fault_are_within_the_limits_of_its_kind():
    for fault in schedule.draw(KINDS, seed=5, duration=3600):
        trait = TRAITS[fault.kind]
        assert fault.target in trait.targets
        assert trait.lasts[0] - 0.01 <= fault.lasts <= trait.lasts[1] + 0.01
        if trait.strengths:
            assert fault.strength in trait.strengths
        else:
            assert trait.strength[0] - 0.01 <= fault.strength <= trait.strength[1] + 0.01


@pytest.mark.parametrize("nodes", [1, 3])
def test_the_leader_of_a_queue_is_killed_only_where_there_is_a_cluster(nodes):
    kinds, left_out = schedule.possible(KINDS, own_stack=True, nodes=nodes)
    assert ("kill-leader" in kinds) == (nodes == 3)
    assert left_out == ({} if nodes == 3 else {"kill-leader": "needs a cluster: --broker rabbitmq --nodes 3"})


def test_leaving_a_kind_out_keeps_the_others():
    kinds, _ = schedule.possible(KINDS, own_stack=True, nodes=1)
    without = [kind for kind in KINDS if kind != "kill-leader"]
    assert schedule.draw(kinds, seed=48, duration=20) == schedule.draw(without, seed=48, duration=20)


def test_a_drill_can_have_no_faults():
    assert schedule.draw([], seed=7, duration=60) == []


def test_an_unknown_fault_is_refused_with_the_list():
    with pytest.raises(argparse.ArgumentTypeError, match=r"no such fault: kill-cat; there are kill-worker"):
        options.kinds("kill-relay,kill-cat")


def test_some_orders_are_meant_to_be_declined_refused_and_cancelled():
    kinds = {planned.kind for planned in planned_orders.draw(200, seed=7, run="a")}
    assert kinds == {"good", "declined", "unshippable", "cancelled"}
