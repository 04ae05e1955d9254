"""Whatever happens, including restores of backups, all invariants hold and every effect happens once."""

from __future__ import annotations

import collections

import hypothesis
import pytest
from hypothesis.stateful import initialize, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from outbox.models import Restore
from outbox.verification import examination, restores
from tests.crash.conftest import forget_everything
from tests.properties.clocks import Clock
from tests.properties.test_any_sequence import AN_ORDER, PARTS, Lives, end_of_log
from tests.restore.backups import forget_keys


class LivesWithBackups(Lives):
    """The same machine, with an operator who restores the last backup more than a day later."""

    backup = None
    stock = 1000

    @initialize(**AN_ORDER)
    def begin_anew(self, **order):
        super().begin_anew(**order)
        self.backed_up = ""  # up to here in the database's log; empty: not yet

    @rule()
    def back_up(self):
        """Take a backup, which takes long, unless the last one has everything that was written."""
        if end_of_log() != self.backed_up:
            self.backup.take()
            self.backed_up = end_of_log()

    @precondition(lambda self: self.backed_up)
    @rule()
    def go_back(self):
        forget_everything()
        forget_keys(self.world.payments, self.world.warehouse)
        self.backup.restore()
        restores.check()

    def teardown(self):
        for _ in range(2):
            self.let_all_end()
            enter_what_is_forgotten()
        self.all_has_ended_well()
        self.nothing_was_done_twice()

    def nothing_was_done_twice(self):
        captured = [
            one for one in self.world.payments.ledger(kind="payment_intent") if one["status"] == "succeeded"
        ]
        charges = collections.Counter(one["metadata"]["order_id"] for one in captured)
        parcels = collections.Counter(one["order_id"] for one in self.world.warehouse.ledger(kind="shipment"))
        assert not [order for order, count in (*charges.items(), *parcels.items()) if count > 1]
        assert set(parcels) <= set(charges)


def enter_what_is_forgotten():
    """Act as `verify --after-restore --repair --apply` does."""
    if Restore.objects.exists():
        report = examination.run(providers=True)
        examination.repair(report, by="on call", reason="a property test", apply=True)


def live(world, settings, backup, clock, *, examples, steps, derandomize):
    settings.NOTIFICATIONS_AFTER_RESTORE = "send"

    class Machine(LivesWithBackups):
        pass

    Machine.world, Machine.settings, Machine.backup, Machine.clock = world, settings, backup, clock
    options = hypothesis.settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=derandomize,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    run_machine(Machine, settings=options)


@pytest.mark.slow
@pytest.mark.timeout(600)  # some seconds of work, and machines that are shared by many
def test_any_sequence_of_events_and_restores_does_nothing_twice(drain, world, settings, backup, monkeypatch):
    live(world, settings, backup, Clock(monkeypatch), examples=4, steps=15, derandomize=True)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", PARTS)
def test_many_random_sequences_of_events_and_restores_do_nothing_twice(
    drain, world, settings, backup, monkeypatch, part
):
    live(world, settings, backup, Clock(monkeypatch), examples=25, steps=40, derandomize=False)
