"""Dead letters: everything is kept, each failure has one open dead letter, resolving deletes nothing."""

from __future__ import annotations

import threading
import uuid

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection, transaction

from outbox import publisher
from outbox.database import storable
from outbox.dead_letters import burying, previews, resolving
from outbox.models import DeadLetter, Delivery, OutboxMessage
from tests.outbox.events import Happened

pytestmark = pytest.mark.django_db(transaction=True)


def failure(**known):
    return burying.Failure(
        **{"source": "task", "consumer": "tests.consumer", "error_class": "Boom", "error": "it went boom"}
        | known
    )


def published():
    with transaction.atomic():
        message_id = publisher.publish(Happened(about="order-1"))
    OutboxMessage.objects.update(status="published")
    return message_id


def test_burying_the_same_failure_again_keeps_one_open_dead_letter_with_the_newest_error():
    message_id = str(uuid.uuid4())
    burying.bury(failure(message_id=message_id, attempts=3))
    burying.bury(failure(message_id=message_id, attempts=6, error="again"))

    [dead_letter] = DeadLetter.objects.all()
    assert (dead_letter.attempts, dead_letter.error) == (6, "again")


def test_concurrent_burials_of_one_failure_keep_one_dead_letter():
    message_id = str(uuid.uuid4())

    def bury():
        burying.bury(failure(message_id=message_id))
        connection.close()

    threads = [threading.Thread(target=bury) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert DeadLetter.objects.count() == 1


def test_a_dead_letter_keeps_values_that_cannot_be_stored_unchanged():
    dead_letter = burying.bury(
        failure(
            error="nul \x00 and \ud800",
            traceback="x" * 100_000,
            payload={"body": "\x00", "when": {1, 2}},
            body="bytes",
        )
    )

    dead_letter.refresh_from_db()
    assert "nul" in dead_letter.error
    assert len(dead_letter.traceback) == storable.LONGEST_TEXT
    assert dead_letter.message_id is None


def test_the_same_cause_has_the_same_fingerprint():
    def fail(number):
        try:
            raise ValueError(f"number {number}")
        except ValueError as error:
            return burying.bury(
                burying.Failure.of(
                    error, source="task", consumer="tests.consumer", message_id=str(uuid.uuid4())
                )
            )

    assert fail(1).fingerprint == fail(2).fingerprint != burying.bury(failure(body="x")).fingerprint


def test_replay_delivers_the_same_message_and_keeps_the_dead_letter(django_user_model):
    message_id = published()
    burying.bury(failure(message_id=str(message_id), workflow="tests.workflow"))
    user = django_user_model.objects.create_user("ops")
    result = resolving.replay(DeadLetter.objects.all(), by="ops", reason="fixed the consumer", user_id=user.pk)

    assert (result.done, result.unreadable) == (1, 0)
    row = Delivery.objects.get()
    assert (row.message_id, row.status, row.workflow) == (message_id, "waiting", "tests.workflow")
    dead_letter = DeadLetter.objects.get()
    assert (dead_letter.resolution, dead_letter.resolved_by, dead_letter.reason) == (
        "replaying",
        "ops",
        "fixed the consumer",
    )
    assert "fixed the consumer" in LogEntry.objects.get().change_message


def test_an_invalid_message_can_be_discarded_but_not_replayed():
    burying.bury(failure(body="garbage"))
    assert previews.preview(DeadLetter.objects.all()).unreadable == 1
    result = resolving.replay(DeadLetter.objects.all(), by="ops", reason="try")
    assert (result.done, result.unreadable) == (0, 1)
    assert DeadLetter.objects.get().resolution == "open"

    assert resolving.discard(DeadLetter.objects.all(), by="ops", reason="garbage").done == 1
    assert DeadLetter.objects.get().resolution == "discarded"


def test_a_resolved_dead_letter_is_not_replayed_again():
    burying.bury(failure(message_id=str(published())))
    resolving.replay(DeadLetter.objects.all(), by="ops", reason="first")

    assert resolving.replay(DeadLetter.objects.all(), by="ops", reason="second").done == 0
    assert DeadLetter.objects.get().reason == "first"


@pytest.mark.parametrize("act", [resolving.replay, resolving.discard])
def test_resolving_a_dead_letter_needs_a_reason(act):
    burying.bury(failure(message_id=str(published())))

    with pytest.raises(resolving.ReasonMissing):
        act(DeadLetter.objects.all(), by="ops", reason="  ")
    assert DeadLetter.objects.get().resolution == "open"


def test_a_decision_is_stored_even_with_undecodable_bytes_on_the_command_line():
    """Python passes on bytes that are not UTF-8 as lone surrogates."""
    burying.bury(failure(body="x"))
    resolving.discard(DeadLetter.objects.all(), by="cli: \udcff", reason=" the \x00 is \udcff ")

    dead_letter = DeadLetter.objects.get()
    assert (dead_letter.resolved_by, dead_letter.reason) == ("cli: \\udcff", "the \\x00 is \\udcff")
