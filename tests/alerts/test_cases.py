"""The faults of the matrix, and what they are expected to raise."""

import pytest

from orderflow.alerts import catalogue
from orderflow.alerts.matrix import cases


def test_every_alert_is_raised_by_some_fault():
    """The slow burn is raised by every fault that raises the fast one, and is inhibited by it."""
    raised = {alert for case in cases.CASES for alert in case.raises}
    assert set(catalogue.NAMES) - raised == {"OrdersLateSlowBurn"}
    assert any("OrdersLateSlowBurn" in case.expected for case in cases.CASES)


@pytest.mark.parametrize("case", cases.CASES, ids=lambda case: case.name)
def test_a_fault_expects_alerts_that_exist(case):
    assert case.raises
    assert case.expected <= set(catalogue.NAMES)


def test_faults_have_names_of_their_own():
    assert len(set(cases.NAMES)) == len(cases.NAMES)


def test_unknown_faults_are_refused_with_those_there_are():
    with pytest.raises(ValueError, match="no such fault: earthquake; there are worker-gone"):
        cases.chosen(["earthquake", "beat-gone"])


def test_all_faults_are_chosen_if_none_is_named():
    assert cases.chosen([]) == list(cases.CASES)
