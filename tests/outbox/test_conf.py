"""The outbox's settings: Django's, by a prefix, or defaults."""

from __future__ import annotations

import re

from outbox import conf, resilience
from tests.processes import ROOT

NAMES = sorted(name for name in vars(conf.Settings) if name.isupper())


def test_a_setting_is_djangos_with_the_prefix_and_else_the_default(settings):
    settings.OUTBOX_RETENTION_DAYS = 7
    assert conf.settings.RETENTION_DAYS == 7

    del settings.OUTBOX_RETENTION_DAYS
    assert conf.settings.RETENTION_DAYS == 30


def test_the_default_breaker_never_opens(settings):
    del settings.OUTBOX_BREAKER_FACTORY

    breaker = resilience.breaker("payments")
    for _ in range(20):
        try:
            with breaker.guard():
                raise resilience.Transient("down")
        except resilience.Transient:
            assert breaker.state() == "closed"


def test_every_setting_is_documented():
    documented = re.findall(r"^\| `OUTBOX_(\w+)` ", (ROOT / "docs" / "outbox.md").read_text(), re.M)
    assert sorted(documented) == NAMES
