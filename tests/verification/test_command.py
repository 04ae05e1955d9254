"""`manage.py verify`: its exit codes and its output."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import pytest
from django.core.management import CommandError, call_command

from outbox.models import Delivery, RepairRecord, Verification
from tests.verification.corruptions import CORRUPTIONS, spoil

pytestmark = pytest.mark.django_db

STALLED = "unfinished-orders-go-on"


def verify(*arguments):
    out = io.StringIO()
    try:
        call_command("verify", *arguments, stdout=out)
    except CommandError as error:
        return SimpleNamespace(code=error.returncode, out=out.getvalue(), error=str(error))
    return SimpleNamespace(code=0, out=out.getvalue(), error="")


def test_a_passed_verification_exits_with_0(books):
    answer = verify()

    assert (answer.code, answer.error) == (0, "")
    assert "invariants hold" in answer.out
    assert "unfinished-orders-go-on" in answer.out


def test_a_failed_verification_exits_with_1_and_shows_invariant_ids_and_command(books):
    spoil(books, CORRUPTIONS["totals-are-sums"])
    answer = verify()

    assert (answer.code, answer.error) == (1, "Invariants that do not hold: totals-are-sums.")
    assert f"order_trace {books.plain.number}" in answer.out


def test_the_json_output_is_complete(books):
    spoil(books, CORRUPTIONS[STALLED])
    answer = verify("--format", "json", "--since", "2h", "--repair")

    report = json.loads(answer.out)
    assert (answer.code, report["passed"], report["providers"], report["applied"]) == (1, False, False, False)
    assert report["since"]
    [violated] = [finding for finding in report["findings"] if finding["verdict"] == "violated"]
    assert (violated["name"], violated["ids"], violated["count"]) == (STALLED, [books.waiting.number], 1)
    assert violated["sentence"]
    assert [repair["subject"] for repair in report["repairs"]] == [books.waiting.number]


def test_repair_is_a_dry_run_unless_it_is_applied_with_a_reason(books):
    spoil(books, CORRUPTIONS[STALLED])
    answer = verify("--repair")

    assert "1 would be repaired" in answer.out
    assert not Delivery.objects.exists()

    answer = verify("--repair", "--apply", "--reason", "its worker died")
    assert "1 repaired" in answer.out
    assert Delivery.objects.get(message_id=books.waiting.message_id).status == "waiting"
    record = RepairRecord.objects.get()
    assert (record.reason, record.repaired_by.startswith("cli:")) == ("its worker died", True)
    assert verify().code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--apply", "--reason", "x"], "--apply needs --repair"),
        (["--repair", "--apply"], "Give a --reason"),
        (["--since", "yesterday"], "use 30m"),
    ],
)
def test_a_mistake_exits_with_2_and_examines_nothing(db, arguments, message):
    answer = verify(*arguments)

    assert (answer.code, message in answer.error) == (2, True)
    assert not Verification.objects.exists()


def test_the_report_is_stored(books):
    spoil(books, CORRUPTIONS["totals-are-sums"])
    verify()

    kept = Verification.objects.get()
    assert (kept.passed, kept.providers, kept.since) == (False, False, None)
    assert kept.by.startswith("cli:")
    assert [finding["name"] for finding in kept.findings if finding["count"]] == ["totals-are-sums"]
