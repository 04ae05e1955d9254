"""Rounds and ratios: contestants take turns, and each is compared with its baseline in every round."""

from __future__ import annotations

import pytest

from benchmarks.harness import (
    Contestant,
    Incorrect,
    Result,
    Sample,
    alternate,
    figure,
    percentile,
    summarise,
)


def contestant(name, values, *, ran=None, baseline=""):
    left = iter(values)

    def run():
        if ran is not None:
            ran.append(name)
        return Sample(value=next(left))

    return Contestant(name=name, run=run, baseline=baseline)


def test_contestants_take_turns():
    ran = []
    alternate([contestant("a", [1, 1, 1], ran=ran), contestant("b", [1, 1, 1], ran=ran)], rounds=3)
    assert ran == ["a", "b", "a", "b", "a", "b"]


def test_a_ratio_is_the_median_of_the_ratios_within_each_round():
    # The machine is twice as fast in the second round, and the ratio stays the same.
    baseline, other = alternate(
        [contestant("naive", [10, 20, 10]), contestant("ours", [40, 80, 50], baseline="naive")], rounds=3
    )
    assert (other.ratio, other.ratio_low, other.ratio_high) == (4, 4, 5)
    assert (other.median, other.low, other.high) == (50, 40, 80)
    assert baseline.ratio is None


def test_an_incorrect_result_ends_the_rounds():
    def wrong():
        raise Incorrect("charged twice")

    with pytest.raises(Incorrect, match="charged twice"):
        alternate([Contestant(name="wrong", run=wrong)], rounds=3)


def test_costs_are_per_unit_and_in_milliseconds():
    row = summarise("ours", [Sample(value=1, units=100, cpu={"relay": 0.5}, counts={"queries": 9})])
    assert row.cpu == {"relay": 5.0}
    assert row.counts == {"queries": 9}


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100)])
def test_a_percentile_is_one_of_the_values(share, expected):
    assert percentile(range(1, 101), share) == expected


def test_a_percentile_of_one_value_is_that_value():
    assert percentile([7.0], 0.99) == 7.0


def test_a_verdict_is_met_within_its_bounds_only():
    result = Result(scenario="any", unit="")
    result.judge("at least 4 x", 4.0, least=4.0)
    result.judge("at least 4 x", 3.9, least=4.0)
    result.judge("at most 5 ms", 5.1, most=5.0)
    assert [verdict.met for verdict in result.verdicts] == [True, False, False]


@pytest.mark.parametrize(("value", "text"), [(12345.6, "12,346"), (42.34, "42.3"), (1.234, "1.23")])
def test_figures_have_the_digits_people_read(value, text):
    assert figure(value) == text
