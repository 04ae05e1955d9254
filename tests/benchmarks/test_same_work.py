"""The baseline does the same work: it leaves the same rows and makes the same calls to providers."""

from __future__ import annotations

import pytest

from benchmarks import counting, environment, ledger, systems, tables
from benchmarks.harness import Incorrect
from benchmarks.load.writers import placer
from benchmarks.naive.celery import app as naive
from notifications.models import Notification
from tests.benchmarks.results import outcome, stock

ORDERS = 2


@pytest.fixture(autouse=True)
def stubs(transactional_db, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "FOLDER", tmp_path)
    ledger._descriptor.cache_clear()
    settings.PAYMENT_GATEWAY = "benchmarks.stub.GuardedGateway"
    settings.WAREHOUSE = "benchmarks.stub.GuardedWarehouse"
    settings.EMAIL_BACKEND = "benchmarks.stub.MailBackend"
    yield
    ledger._descriptor.cache_clear()


def work_off(writer, app):
    tables.clean()
    place, counter = placer(writer), counting.Counter()
    for number in range(ORDERS):
        place(number)
    counting.work_off(counter, app=app)
    # In the benchmark OrderFlow sends only this e-mail (benchmarks.apps), as the baseline does.
    Notification.objects.exclude(template="fulfilled").delete()
    return counter.per(ORDERS)


def test_both_systems_leave_the_same_rows():
    work_off("naive", naive)
    theirs, their_stock = outcome(), stock()
    work_off("orderflow", None)
    assert outcome() == theirs
    assert stock() == their_stock


def test_both_systems_call_the_providers_once():
    for writer, app in (("naive", naive), ("orderflow", None)):
        work_off(writer, app)
        assert len(ledger.read("charge")) == len(ledger.read("ship")) == ORDERS


def test_a_naive_order_passes_the_broker_four_times():
    assert work_off("naive", naive).messages == 4


def test_a_correct_result_is_accepted():
    work_off("naive", naive)
    systems.check(ORDERS)


def test_a_card_charged_twice_is_noticed():
    work_off("naive", naive)
    ledger.note("charge", ledger.read("charge")[0].key)
    with pytest.raises(Incorrect, match="2 times"):
        systems.check(ORDERS)


def test_a_lost_order_is_noticed():
    work_off("naive", naive)
    with pytest.raises(Incorrect):
        systems.check(ORDERS + 1)
