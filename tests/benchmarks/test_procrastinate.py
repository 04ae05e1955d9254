"""The baseline with procrastinate: the same work as the others, and left out where it is not to be had."""

from __future__ import annotations

import urllib.parse

import pytest
from django.db import connection

from benchmarks import counting, environment, ledger, systems, tables
from benchmarks.harness import Result
from benchmarks.load.writers import placer
from benchmarks.naive.celery import app as naive
from benchmarks.procrastinate import sql, system, venv
from benchmarks.scenarios import waiting
from notifications.models import Notification
from tests.benchmarks.results import outcome, stock

ORDERS, JOBS = 2, 4


@pytest.fixture
def variables(transactional_db, settings, tmp_path, monkeypatch):
    """The environment of a worker on the database of the tests; without a package index there is none."""
    try:
        venv.python()
    except venv.Unavailable as reason:
        pytest.skip(str(reason))
    monkeypatch.setattr(environment, "FOLDER", tmp_path)
    ledger._descriptor.cache_clear()
    settings.EMAIL_BACKEND = "benchmarks.stub.MailBackend"
    known = connection.get_connection_params()
    given = {name: known[name] for name in ("user", "password", "host", "port", "dbname") if known.get(name)}
    yield {
        "DATABASE_URL": f"postgresql://?{urllib.parse.urlencode(given)}",
        "BENCHMARK_FOLDER": str(tmp_path),
    }
    with connection.cursor() as cursor:
        cursor.execute("RESET search_path")
    ledger._descriptor.cache_clear()


def mails():
    """Return what the customers read; each run has its own order numbers."""
    sent = Notification.objects.order_by("order_number")
    return [
        [text.replace(mail.order_number, "OF-1") for text in (mail.subject, mail.text, mail.html)]
        for mail in sent
    ]


@pytest.mark.slow
@pytest.mark.parametrize("writer", sql.FIRST_JOBS)
def test_its_rows_texts_and_calls_are_those_of_the_naive_system(variables, writer):
    tables.clean()
    place = placer("naive")
    for number in range(ORDERS):
        place(number)
    counting.work_off(counting.Counter(), app=naive)
    expected = outcome(), stock(), mails()

    tables.clean()
    with system.installed(**variables) as python:
        place = placer(writer)
        for number in range(ORDERS):
            place(number)
        for _ in range(JOBS):  # jobs that are deferred by others are not waited for
            system.run(python, "4", "once", **variables)

    systems.check(ORDERS)
    assert (outcome(), stock(), mails()) == expected


def test_packages_that_cannot_be_installed_are_a_reason_not_an_error(tmp_path, monkeypatch):
    unknown = tmp_path / "requirements.txt"
    unknown.write_text("nothing-of-this-name==1 --hash=sha256:" + "0" * 64 + "\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(venv.Unavailable, match=r"procrastinate cannot be installed: .*nothing-of-this-name"):
        venv.python(tmp_path / "venv", unknown)


def test_without_it_the_scenario_compares_the_others(monkeypatch):
    def unavailable():
        raise venv.Unavailable("procrastinate cannot be installed: no network")

    monkeypatch.setattr(venv, "python", unavailable)
    result = Result(scenario="waiting", unit="orders/s")
    with waiting._asynchronous(result) as others:
        assert others == []
    assert result.notes == ["procrastinate was left out: procrastinate cannot be installed: no network"]
