"""OrderFlow as of another commit runs from its own files, in its own database."""

from __future__ import annotations

import subprocess

import pytest
from django.db import connection

from benchmarks import against, environment
from benchmarks.harness import Incorrect, Result, Sample, summarise
from tests.processes import ROOT


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "FOLDER", tmp_path)


def test_a_commit_that_is_not_there_is_named():
    with pytest.raises(Incorrect, match="0123456"), against.checked_out("0123456789"):
        pass


def test_the_round_of_the_other_commit_is_one_that_the_current_files_have_too():
    names = {}
    exec(compile(against.ROUND.split("sample =")[0].replace("django.setup()", ""), "round", "exec"), names)
    assert callable(names["throughput"])
    assert names["OURS"].name == "orderflow"


def test_processor_times_are_compared_within_each_round():
    def row(name, costs):
        return summarise(name, [Sample(value=1.0, cpu={"a": cost / 2000, "b": cost / 2000}) for cost in costs])

    result = Result(scenario="pipeline", unit="", rows=[row("ours", [12, 30, 16]), row("then", [20, 50, 20])])
    assert result.cost_ratio("ours", "then") == pytest.approx(0.6)


@pytest.mark.slow
def test_files_and_database_are_those_of_the_commit_and_are_removed(transactional_db, monkeypatch):
    monkeypatch.setattr(environment, "DATABASE_URL", _address())
    with against.checked_out("HEAD") as other:
        listed = subprocess.run(
            ["git", "ls-tree", "--name-only", "HEAD"], cwd=ROOT, capture_output=True, text=True
        )
        assert {path.name for path in other.files.iterdir()} >= set(listed.stdout.split())
        database = other.environment["DATABASE_URL"].rpartition("/")[2]
        assert database in _databases()
        printed = other._run("-c", "import outbox; print(outbox.__file__)")
        assert printed.startswith(str(other.files))
    assert database not in _databases()
    assert not other.files.exists()


def _databases():
    with connection.cursor() as cursor:
        cursor.execute("SELECT datname FROM pg_database")
        return {name for (name,) in cursor.fetchall()}


def _address():
    from urllib.parse import quote

    known = connection.get_connection_params()
    who = ":".join(quote(str(known[name])) for name in ("user", "password") if known.get(name))
    return f"postgresql://{who}@{known['host']}:{known['port']}/{known['dbname']}"
