"""Commands in pages and texts can be pasted as they are, and are shown to users who may run them."""

from __future__ import annotations

import html
import re
import shlex
import subprocess
import sys

import pytest
from django.contrib.auth.models import Permission
from django.urls import reverse

from orderflow.ops import demo, order_story
from orders import services
from orders.api.schemas import NewOrder
from orders.clients import tokens
from orders.models import Order
from outbox.command_lines import as_typed_here, command_line, counted
from outbox.dead_letters import burying
from outbox.models import DeadLetter, OutboxMessage
from tests.admin.conftest import staff
from tests.factories import place
from tests.processes import ROOT, environment


@pytest.fixture(autouse=True)
def _quick_passwords(settings) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


def bury(order: Order, **known) -> DeadLetter:
    facts = {"source": "task", "consumer": "orders.tasks.charge", "error_class": "Down", "error": "503"}
    facts |= {"message_id": str(order.message_id), "key": str(order.pk)}
    return burying.bury(burying.Failure(**(facts | known)))


def pasted(line: str) -> list[str]:
    """Return the words of a command as a shell splits them, without the program."""
    return shlex.split(line.removeprefix(command_line("x").removesuffix("x")))


def offered(client, page: str) -> list[str]:
    found = re.findall(r'<p class="of-command">.*?<code>(.*?)</code>', client.get(page).text, re.DOTALL)
    return [html.unescape(line) for line in found]


def test_the_command_in_an_orders_history_replays_what_blocks_it(run):
    order = place()
    dead_letter = bury(order)

    assert run(*pasted(order_story.way_out(order))).code == 0
    dead_letter.refresh_from_db()
    assert dead_letter.resolution != "open"
    assert order_story.way_out(order) == ""


def test_commands_on_the_pages_of_an_order_and_of_a_dead_letter_work_when_pasted(run, client):
    client.force_login(staff("on-call"))
    order = place()
    pages = [
        reverse("admin:orders_order_change", args=[order.pk]),
        reverse("admin:outbox_deadletter_change", args=[bury(order).pk]),
        reverse("admin:outbox_deadletter_change", args=[bury(order, message_id="", key="", body="garbage").pk]),
    ]
    lines = [offered(client, page) for page in pages]

    assert [len(line) for line in lines] == [1, 1, 1]
    assert lines[0] == lines[1]
    assert run(*pasted(lines[1][0])).code == 0
    assert run(*pasted(lines[2][0])).code == 0


def test_only_permitted_and_possible_actions_are_offered(transactional_db, client):
    order = place()
    dead_letter = bury(order)
    page = reverse("admin:orders_order_change", args=[order.pk])
    client.force_login(staff("support"))
    assert offered(client, page) == []

    client.force_login(staff("on-call"))
    assert len(offered(client, page)) == 1
    OutboxMessage.objects.filter(pk=dead_letter.message_id).delete()
    assert offered(client, reverse("admin:outbox_deadletter_change", args=[dead_letter.pk])) == []


@pytest.mark.parametrize("verb", ["replay", "discard"])
def test_the_page_of_a_dead_letter_offers_what_its_reader_may_do(transactional_db, client, verb):
    reader, order = staff("reader"), place()
    letter = bury(order) if verb == "replay" else bury(order, message_id="", key="", body="garbage")
    page = reverse("admin:outbox_deadletter_change", args=[letter.pk])
    client.force_login(reader)
    reader.user_permissions.add(Permission.objects.get(codename="view_deadletter"))
    assert offered(client, page) == []

    reader.user_permissions.add(Permission.objects.get(codename=f"{verb}_deadletter"))
    [line] = offered(client, page)
    assert f"{verb}_failures --id {letter.pk}" in line


def test_shown_commands_start_with_the_local_prefix(settings):
    settings.OUTBOX_COMMAND = "python3 run.py"
    assert command_line("order_trace", "OF-1", reason="it's done") == (
        'python3 run.py order_trace OF-1 --reason "it\'s done"'
    )
    assert command_line("replay_failures", "--consumer", "a name; reset") == (
        "python3 run.py replay_failures --consumer 'a name; reset'"
    )
    assert as_typed_here("python manage.py verify --repair") == "python3 run.py verify --repair"
    del settings.OUTBOX_COMMAND
    assert command_line("help", "verify") == "python manage.py help verify"


@pytest.mark.slow
@pytest.mark.parametrize("words", [["help", "chaos"], ["chaos", "--help"]])
@pytest.mark.parametrize("typed", ["python3 run.py", ""])
def test_the_usage_line_begins_with_what_was_typed(words, typed):
    answer = subprocess.run(
        [sys.executable, "manage.py", *words],
        cwd=ROOT,
        env={k: v for k, v in environment().items() if k != "ORDERFLOW_COMMAND"}
        | ({"ORDERFLOW_COMMAND": typed} if typed else {}),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert answer.stdout.startswith(f"usage: {typed or 'manage.py'} chaos ")


@pytest.mark.slow
def test_help_on_a_command_needs_no_stack_and_shows_what_was_typed():
    answer = subprocess.run(
        [sys.executable, "run.py", "help", "verify"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "usage: python3 run.py verify " in answer.stdout  # after the output of a set-up, if there was one


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 attempts"), (1, "1 attempt"), (2, "2 attempts"), (1000, "1000 attempts")]
)
def test_counts_are_shown_with_the_right_plural(number, text):
    assert counted(number, "attempt") == text
    assert counted(number, "copy", "copies").split()[1] == ("copy" if number == 1 else "copies")


@pytest.mark.django_db(transaction=True)
def test_a_single_attempt_is_counted_in_the_singular():
    order = place()
    bury(order)
    story = [entry.what for entry in order_story.story(order)]
    assert any(line.endswith("gave up after 1 attempt") for line in story)


@pytest.mark.slow
def test_a_history_fits_into_eighty_columns_with_every_id_complete(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    order = place(contact=services.Contact(email="a@example.com"))
    bury(order, consumer="notifications.tasks.send_email", error=f"no {'Z' * 120}")
    told = run("order_trace", order.number).out

    assert max(map(len, told.splitlines())) <= 80
    assert str(order.message_id) in told
    assert told.count("Z") == 120
    assert "…" not in told
    assert order.number in run("order_trace", str(order.pk)).out


def test_the_example_of_the_api_works_against_the_demo(transactional_db, client):
    demo.begin()
    _, secret = tokens.create("shop", scopes=["orders:read", "orders:write"])
    example = NewOrder.model_config["json_schema_extra"]["example"]
    answer = client.post(
        "/api/v1/orders",
        example,
        content_type="application/json",
        headers={"Authorization": f"Bearer {secret}", "Idempotency-Key": "an-example"},
    )

    assert answer.status_code == 201, answer.text
    assert answer.json()["total_minor"] > 0


def test_a_replay_by_command_shows_how_to_see_its_result(run):
    bury(place())
    told = run("replay_failures", "--all", "--reason", "the cause is fixed").out
    [line] = [line for line in told.splitlines() if line.startswith("See the outcome: ")]

    words = [{"60": "0.1"}.get(word, word) for word in pasted(line.removeprefix("See the outcome: "))]
    assert "under way" in run(*words).out + run(*words).error
