"""Rules use metrics and labels that exist: a misspelt one would be an alert that never fires."""

from __future__ import annotations

import pytest
import yaml

from tests import metric_names, promql
from tests.processes import ROOT

RULES = [
    rule
    for group in yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yml").read_text())["groups"]
    for rule in group["rules"]
]
RECORDED = {rule["record"]: promql.labels(rule["expr"]) for rule in RULES if "record" in rule}
EVERY_SERIES_HAS = {"le", "job", "instance"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("alert") or rule["record"])
def test_every_metric_and_label_of_a_rule_is_one_that_our_code_exports(rule):
    known = metric_names.exported() | RECORDED
    named = promql.metrics(rule["expr"])
    assert named
    assert named <= known.keys()
    assert promql.labels(rule["expr"]) <= EVERY_SERIES_HAS.union(*(known[name] for name in named))
