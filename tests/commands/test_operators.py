"""Operators' commands: exit codes, output, and dry runs that change nothing."""

from __future__ import annotations

import json
import uuid

import pytest
from django.contrib.auth import get_user_model

from orders import services
from orders.models import Order
from outbox.dead_letters import burying
from outbox.models import DeadLetter, OutboxMessage
from tests.factories import ProductFactory, place


@pytest.fixture
def buried(drain, world):
    """An order whose charge was given up."""
    order = place(payment_method="pm_no_such_card", contact=services.Contact())
    drain()
    return order


def test_an_unfiltered_replay_is_refused(run):
    assert "Select dead letters by" in run("replay_failures", "--reason", "x").error


@pytest.mark.parametrize("reason", [[], ["--reason", ""], ["--reason", "  "]])
@pytest.mark.parametrize("command", ["replay_failures", "discard_failures"])
def test_nothing_is_resolved_without_a_reason(run, command, reason):
    burying.bury(burying.Failure(source="worker", consumer="x", error_class="X", error="x", body="garbage"))

    assert "Give a --reason" in run(command, "--all", *reason).error
    assert DeadLetter.objects.unresolved().count() == 1


def test_no_match_has_its_own_exit_code(run):
    assert run("replay_failures", "--all", "--reason", "x").code == 4
    assert run("discard_failures", "--all", "--reason", "x").code == 4


def test_a_dry_run_reports_and_changes_nothing(run, buried):
    before = list(DeadLetter.objects.values()), list(OutboxMessage.objects.values())
    answer = run("replay_failures", "--all", "--dry-run", "--format", "json")

    assert json.loads(answer.out)["by_consumer"] == {"orders.tasks.charge": 1}
    assert (list(DeadLetter.objects.values()), list(OutboxMessage.objects.values())) == before


@pytest.mark.parametrize(
    "which",
    [
        ["--consumer", "orders.tasks.charge"],
        ["--error", "PaymentRequestRefused"],
        ["--since", "2h"],
        ["--order", "NUMBER"],
        ["--id", "ID"],
        ["--all", "--limit", "5", "--rate", "100"],
    ],
)
def test_each_selection_replays_the_selected_dead_letter(run, buried, which):
    dead_letter = DeadLetter.objects.get()
    which = [{"NUMBER": buried.number, "ID": str(dead_letter.pk)}.get(word, word) for word in which]
    answer = run("replay_failures", *which, "--reason", "card corrected")

    assert (answer.code, answer.error) == (0, "")
    dead_letter.refresh_from_db()
    assert (dead_letter.resolution, dead_letter.reason) == ("replaying", "card corrected")
    assert dead_letter.resolved_by.startswith("cli:")


@pytest.mark.parametrize(
    "which",
    [["--consumer", "orders.tasks.refund"], ["--error", "KeyError"], ["--since", "2100-01-01"], ["--id", "0"]],
)
def test_other_dead_letters_are_left_alone(run, buried, which):
    assert run("replay_failures", *which, "--reason", "x").code == 4
    assert DeadLetter.objects.unresolved().count() == 1


def test_dead_letters_without_a_message_are_counted_and_left_open(run):
    burying.bury(burying.Failure(source="worker", consumer="x", error_class="X", error="x", body="garbage"))
    answer = run("replay_failures", "--all", "--reason", "try")

    assert (answer.code, "Discard them" in answer.error) == (3, True)
    assert DeadLetter.objects.unresolved().count() == 1
    assert run("discard_failures", "--all", "--reason", "garbage").code == 0


def test_a_dry_run_counts_what_can_be_replayed_and_explains_the_rest(run):
    def bury(**known):
        burying.bury(
            burying.Failure(**{"source": "task", "consumer": "x", "error_class": "X", "error": "x"} | known)
        )

    bury(message_id=str(place().message_id), consumer="orders.tasks.charge")
    bury(body="garbage")
    bury(message_id=str(uuid.uuid4()))

    output = run("replay_failures", "--all", "--dry-run").out
    assert "1 would be replayed, 2 cannot be" in output
    assert "1 carried no message that could be read" in output
    assert "1 had a message that is no longer in the outbox" in output
    assert output.splitlines()[1:] == ["       1  orders.tasks.charge"]


def test_an_unreadable_time_is_reported(run):
    assert "use 30m" in run("replay_failures", "--since", "yesterday", "--reason", "x").error


def test_the_trace_shows_the_whole_history_and_what_waits(run, buried):
    output = json.loads(run("order_trace", buried.number, "--format", "json").out)
    kinds = [entry["kind"] for entry in output["story"]]
    assert {"order", "message", "attempt", "payment", "dead letter"} <= set(kinds)
    assert "orders.tasks.charge gave up" in output["outlook"]
    assert "replay_failures --id" in output["command"]
    times = [entry["at"] for entry in output["story"]]
    assert times == sorted(times)

    assert buried.number in run("order_trace", buried.number.lower()).out
    assert run("order_trace", "OF-0").error == "There is no order OF-0."


def test_the_status_shows_numbers_and_fails_when_nothing_makes_progress(run, buried):
    now = json.loads(run("outbox_status", "--format", "json").out)
    assert now["dead_letters"] == {"orders.tasks.charge": 1}
    assert now["queues"]["orders"] == 0

    place()
    answer = run("outbox_status", "--oldest=-1")
    assert (answer.code, "Is a relay running?" in answer.error) == (3, True)
    assert "open dead letters" in answer.out


def test_the_status_works_while_the_broker_is_down(run, monkeypatch):
    from outbox.broker import inspection

    def refuse(queue):
        raise OSError("connection refused")

    monkeypatch.setattr(inspection, "waiting", refuse)
    assert "does not answer" in json.loads(run("outbox_status", "--format", "json").out)["queues"]


def test_an_order_placed_by_hand(run):
    product = ProductFactory(price_minor=500)
    number = run("place_order", "--sku", product.sku, "--quantity", "3", "--email", "a@example.com").out.strip()

    order = Order.objects.get(number=number)
    assert (order.total_minor, order.source, order.customer_email) == (1500, "cli", "a@example.com")


def test_the_same_key_by_hand_gives_the_same_order(run):
    sku = ProductFactory().sku
    first = run("place_order", "--sku", sku, "--key", "k").out.strip()

    assert (
        run("place_order", "--sku", sku, "--key", "k").out.strip() == f"{first} (placed before under this key)"
    )
    assert "another order" in run("place_order", "--sku", sku, "--quantity", "2", "--key", "k").error


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--sku", "NOPE"], "there is no product NOPE"),
        (["--sku", "A", "--quantity", "0"], "at least 1"),
        (["--sku", "A", "--quantity", "1", "--quantity", "2"], "one --quantity for each"),
        (["--sku", "A", "--card", "4242424242424242"], "--card must be"),
    ],
)
def test_a_mistake_is_reported_in_a_sentence(run, arguments, sentence):
    assert sentence in run("place_order", *arguments).error


@pytest.mark.slow
def test_the_administrator_is_created_and_restored(run, settings):
    assert "Set ORDERFLOW_ADMIN_USER" in run("ensure_admin").error
    settings.ADMIN_USER, settings.ADMIN_PASSWORD = "admin", "first-password"
    run("ensure_admin")
    settings.ADMIN_PASSWORD = "second-password"
    run("ensure_admin")

    user = get_user_model().objects.get()
    assert user.is_superuser
    assert user.check_password("second-password")


def test_the_demo_without_a_sandbox_reports_what_is_missing(run, settings):
    settings.STRIPE_API_BASE = "http://127.0.0.1:9"

    assert "does not answer" in run("demo").error


def test_a_replay_reports_its_result(run, drain, world):
    orders = [place(payment_method="pm_no_such_card", contact=services.Contact()) for _ in range(3)]
    drain()
    Order.objects.filter(pk=orders[0].pk).update(payment_method="pm_card_visa")
    answer = json.loads(run("replay_failures", "--all", "--reason", "mended", "--format", "json").out)
    assert answer["outcomes"]["under_way"] == 3

    drain()
    output = run("replay_failures", "--outcome", str(answer["replay"])).out
    assert output.strip() == "3 sent: 1 recovered, 2 failed again"
    assert run("replay_failures", "--outcome", "0").code == 4


def test_a_replay_that_is_waited_for_fails_when_not_all_recovered(run, drain, world):
    place(payment_method="pm_no_such_card", contact=services.Contact())
    drain()
    answer = run("replay_failures", "--all", "--reason", "a guess", "--wait", "0.01")

    assert answer.code == 3
    assert "1 sent: 1 under way" in answer.out


def test_a_slow_replay_is_one_replay(run, drain, world):
    for _ in range(2):
        place(payment_method="pm_no_such_card", contact=services.Contact())
    drain()
    answer = run("replay_failures", "--all", "--reason", "x", "--rate", "1000", "--format", "json")

    assert json.loads(answer.out)["outcomes"]["sent"] == 2


def test_discarding_the_dead_letter_of_an_unfinished_order_needs_the_order_too(run, buried):
    answer = run("discard_failures", "--all", "--reason", "x")
    assert (answer.code, answer.out.strip()) == (3, "0 discarded")
    assert f"{buried.number} is validated" in answer.error
    assert "--cancel-orders" in answer.error
    assert "1 left open" in run("discard_failures", "--all", "--dry-run").out

    answer = run("discard_failures", "--all", "--reason", "x", "--cancel-orders")
    assert (answer.code, answer.out.strip()) == (0, "1 discarded")
    assert Order.objects.get(pk=buried.pk).cancel_requested_at
