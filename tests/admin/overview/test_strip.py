"""The status strip states what is true of each part, in words."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest
from django.conf import settings
from django.urls import reverse

import celeryconfig
from orderflow.ops.overview import patience, servers, strip
from orderflow.ops.overview.parts import Group, Part, State, summary, worst
from orderflow.shared_state import credentials
from outbox import resilience
from outbox.broker.inspection import QueueLength
from outbox.database import clock
from outbox.models import Heartbeat, OutboxMessage, Verification
from outbox.resilience import Circuit
from tests.admin.overview.conftest import beat, done, execute, healthy, part
from tests.conftest import close_breakers
from tests.factories import place


@pytest.fixture(autouse=True)
def _closed():
    close_breakers()
    yield
    close_breakers()


def verified(*, passed: bool = True, ago: dt.timedelta = dt.timedelta(minutes=5), findings=()) -> Verification:
    return Verification.objects.create(
        ran_at=clock.now() - ago,
        took=dt.timedelta(seconds=1),
        providers=False,
        passed=passed,
        by="beat",
        findings=list(findings),
    )


def test_everything_is_as_it_should_be(overview):
    healthy()
    verified()
    page = overview()

    assert page.shown.worst == State.GOOD
    assert page.shown.summary == "Everything that could be read is as it should be."
    words = {part.slug: part.word for group in page.shown.groups for part in group.parts}
    assert words["database"] == words["broker"] == "answers"
    assert words["oldest-due"] == "none waits"
    assert words["relay"] == words["beat"] == "1 alive"
    assert words["worker"] == f"{len(celeryconfig.QUEUES) - 1} alive"
    assert words["verification"] == "passed"
    assert {words[f"queue-{name}"] for name in celeryconfig.QUEUES} == {"1 consumer"}
    assert {word for slug, word in words.items() if slug.startswith("breaker-")} == {"closed"}


def test_an_empty_database_is_no_good_news(overview):
    page = overview()

    assert part(page, "relay").word == part(page, "beat").word == part(page, "worker").word == "never seen"
    assert part(page, "verification").word == "never run"
    assert part(page, "queue-email").word == "no consumers"
    assert page.shown.worst == State.BAD
    assert "Relay: never seen" in page.shown.summary


def test_a_process_that_is_gone_is_named_and_one_that_ended_is_not_missed(overview):
    healthy()
    beat("worker", "email", name="email@lost", ago=500)
    beat("worker", "sms", ended=True)
    page = overview()

    gone = part(page, "worker")
    assert (gone.state, gone.word) == (State.BAD, "1 gone")
    assert gone.detail.startswith("email; 4 alive; last seen 8 min ago")
    assert part(page, "queue-sms").word == "no consumers"
    assert part(page, "queue-email").word == "1 consumer"

    Heartbeat.objects.filter(role="beat").delete()
    beat("beat", ended=True)
    assert part(overview(), "beat").word == "stopped"


def test_a_late_sweep_and_a_failing_one_are_named(overview):
    healthy()
    done("outbox.tasks.sweep", ago=4000)
    done("outbox.tasks.drain", ago=0, error="ValueError('<b>')")
    page = overview()

    found = part(page, "sweeps")
    assert (found.state, found.word) == (State.BAD, "1 late, 1 failing")
    assert "outbox.tasks.sweep 67 min ago" in found.detail
    assert "outbox.tasks.drain" in found.detail
    assert "ValueError" not in page.text

    done("outbox.tasks.sweep")
    assert part(overview(), "sweeps").state == State.WARN


def test_the_oldest_due_message_is_as_old_as_it_is(overview):
    healthy()
    order = place()
    execute("UPDATE outbox_outboxmessage SET not_before = now() - interval '10 minutes'")
    found = part(overview(), "oldest-due")
    assert (found.state, found.word) == (State.BAD, "10 min")
    assert found.detail == "late: more than 60 s"

    OutboxMessage.objects.filter(pk=order.message_id).update(not_before=clock.now() + dt.timedelta(days=300))
    assert part(overview(), "oldest-due").word == "none waits"


@pytest.mark.parametrize(
    ("circuit", "state", "word", "detail"),
    [
        (Circuit(state="closed"), State.GOOD, "closed", "calls go through"),
        (Circuit(state="open", open_seconds=300.0), State.BAD, "open", "for 5 min; its work waits"),
        (Circuit(state="half-open", open_seconds=9.0), State.WARN, "half-open", "for 9 s; probes"),
        (Circuit(state="open"), State.BAD, "open", "its work waits"),
        (Circuit(state="unknown"), State.UNKNOWN, "unknown", "Redis does not answer"),
    ],
)
def test_breakers_show_what_all_processes_know(overview, monkeypatch, circuit, state, word, detail):
    class Breaker(resilience.AlwaysClosed):
        def circuit(self):
            return circuit

    monkeypatch.setattr(resilience, "breaker", lambda name: Breaker())
    found = part(overview(), "breaker-payments")

    assert (found.state, found.word) == (state, word)
    assert found.detail.startswith(detail)


def test_a_provider_that_refuses_our_settings_is_named_with_what_to_correct(overview):
    credentials.note_refused("sms", "correct TWILIO_AUTH_TOKEN & <reload>")
    page = overview()

    assert part(page, "breaker-sms").word == "refuses our settings"
    assert page.text.count("correct TWILIO_AUTH_TOKEN &amp; &lt;reload&gt;") == 2  # also above every page


@pytest.mark.usefixtures("no_broker")
def test_a_broker_that_is_down_is_named_and_the_rest_is_shown(overview):
    healthy()
    page = overview()

    assert part(page, "broker").word == "does not answer"
    assert "orders are accepted" in part(page, "broker").detail
    queue = part(page, "queue-orders")
    assert (queue.state, queue.word) == (State.UNKNOWN, "1 consumer")
    assert queue.detail == "an unknown number of messages waits"
    assert part(page, "relay").word == "1 alive"


def test_the_broker_says_how_many_messages_wait(overview, monkeypatch):
    healthy()
    lengths = {"orders": QueueLength(ready=12_345, unacknowledged=7), "sms": QueueLength(ready=1, consumers=0)}
    answer = servers.Broker(milliseconds=3, queues=lengths, wrong_keys={"email": "is a <string>"})
    monkeypatch.setattr(servers, "broker", patience.Question(lambda: answer))
    page = overview()

    assert part(page, "queue-orders").detail == "12,345 waiting, 7 unacknowledged"
    assert (part(page, "queue-sms").word, part(page, "queue-sms").detail) == ("no consumers", "1 waiting")
    assert part(page, "queue-email").state == State.UNKNOWN
    assert (part(page, "broker").state, part(page, "broker").detail) == (State.WARN, "email: is a <string>")
    assert "is a &lt;string&gt;" in page.text


def test_the_verdict_is_shown_with_its_age_and_linked(overview):
    healthy()
    run = verified(passed=False, findings=[{"name": "no <order> lost", "verdict": "violated"}])
    page = overview()

    found = part(page, "verification")
    assert (found.state, found.word) == (State.BAD, "not as promised")
    assert found.detail == "no <order> lost; 5 min ago"
    assert reverse("admin:outbox_verification_change", args=[run.pk]) in page.text

    verified(ago=dt.timedelta(minutes=4))
    assert part(overview(), "verification").word == "passed"


def test_a_verdict_that_is_old_is_no_good_news(overview):
    healthy()
    done("outbox.tasks.verify", ago=86_400)
    verified(ago=dt.timedelta(days=1))

    assert part(overview(), "verification").word == "passed, but long ago"


def test_times_in_the_future_are_called_so(overview):
    healthy()
    verified(ago=dt.timedelta(days=-400))
    beat("beat", ago=-86_400)
    execute("UPDATE outbox_periodicrun SET last_ended_at = now() + interval '3 days'")
    page = overview()

    assert part(page, "verification").detail == "in the future by 400 d: a clock was wrong"
    assert part(page, "beat").detail == "seen in the future by 24 h: a clock was wrong"
    assert part(page, "sweeps").state == State.BAD


def test_runbooks_are_linked_where_they_are_needed(overview, settings):
    healthy()
    settings.RUNBOOKS_URL = "https://docs.example/runbooks/"
    Heartbeat.objects.filter(role="beat").delete()
    page = overview()

    assert 'href="https://docs.example/runbooks/BeatGone.md"' in page.text
    assert "RelayGone" not in page.text
    settings.RUNBOOKS_URL = ""
    assert "BeatGone" not in overview().text


@pytest.mark.usefixtures("no_broker")
def test_every_runbook_exists(overview):
    Verification.objects.all().delete()
    done("outbox.tasks.sweep", ago=4000)
    credentials.note_refused("sms", "correct it")
    parts = [part for group in overview().shown.groups for part in group.parts]
    verified(passed=False)
    wanted = {part.runbook for part in [*parts, part(overview(), "verification")]} - {""}

    known = {path.stem for path in (settings.BASE_DIR / "docs" / "runbooks").glob("*.md")}
    assert len(wanted) >= 10
    assert wanted - known == set()


def test_a_summary_names_the_worst_first_and_not_all():
    names = [("a", State.WARN), ("b", State.BAD), ("c", State.GOOD), ("d", State.UNKNOWN)]
    parts = [Part(slug=name, name=name, state=state, word="x") for name, state in names]
    group = Group(name="g", parts=parts)

    assert summary([group]) == "b: x; a: x; d: x."
    assert worst([group]) == State.BAD
    many = Group(name="g", parts=[dataclasses.replace(parts[1], slug=str(n)) for n in range(9)])
    assert summary([many]).endswith("; and 4 more.")
    assert summary([]) == ""
    assert strip.database(None, "does not answer").state == State.BAD
