"""A dead letter links to the runbook for its cause."""

from __future__ import annotations

import pytest
from django.urls import reverse

from orderflow.ops import runbooks
from outbox.models import DeadLetter
from tests.processes import ROOT


def page_of(client, dead_letter):
    return client.get(reverse("admin:outbox_deadletter_change", args=[dead_letter.pk])).text


def test_a_dead_letter_links_to_its_runbook(signed_in, dead_letter, settings):
    settings.RUNBOOKS_URL = "https://wiki.example/runbooks/"

    page = page_of(signed_in("on-call"), dead_letter)

    assert '<a href="https://wiki.example/runbooks/DeadLettersGrowing.md">DeadLettersGrowing</a>' in page


def test_without_an_address_the_page_names_the_file(signed_in, dead_letter, settings):
    settings.RUNBOOKS_URL = ""
    assert "docs/runbooks/DeadLettersGrowing.md" in page_of(signed_in("on-call"), dead_letter)


@pytest.mark.parametrize(
    ("consumer", "error_class", "name"),
    [
        ("orders.tasks.charge", "CrashLoop", "poison-message"),
        ("notifications.tasks.send_email", "HeldAfterRestore", "restore-from-backup"),
        ("notifications.tasks.send_sms", "MessageRefused", "NotificationChannelFailing"),
        ("outbox.worker", "JSONDecodeError", "poison-message"),
        ("orders.tasks.charge", "PaymentRequestRefused", "DeadLettersGrowing"),
    ],
)
def test_the_runbook_depends_on_the_cause(consumer, error_class, name):
    assert runbooks.name_for(DeadLetter(consumer=consumer, error_class=error_class)) == name


def test_every_runbook_that_a_page_links_to_exists():
    named = {*runbooks.OF_ERRORS.values(), *runbooks.OF_CONSUMERS.values(), runbooks.OF_OTHERS}

    assert {name for name in named if not (ROOT / runbooks.FOLDER / f"{name}.md").exists()} == set()
