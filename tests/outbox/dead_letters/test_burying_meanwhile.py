"""Burying a failure while its earlier dead letter is being resolved loses neither."""

from __future__ import annotations

import threading
import uuid

import pytest
from django.db import IntegrityError, OperationalError, connection, transaction

from outbox.dead_letters import burying, resolving
from outbox.models import DeadLetter
from tests.outbox.dead_letters.test_dead_letters import failure, published

pytestmark = pytest.mark.django_db(transaction=True)


def elsewhere(act):
    """Act over a separate connection; return False if it would have to wait for this one."""

    def run():
        try:
            with transaction.atomic():
                connection.cursor().execute("SET LOCAL lock_timeout = '100ms'")
                act()
            done.append(True)
        except OperationalError as error:
            if "lock timeout" not in str(error):
                raise
        finally:
            connection.close()

    done: list[bool] = []
    thread = threading.Thread(target=run)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    return bool(done)


def discard():
    resolving.discard(DeadLetter.objects.all(), by="ops", reason="a mistake")


def replay():
    resolving.replay(DeadLetter.objects.all(), by="ops", reason="mended")


@pytest.mark.parametrize("resolve", [discard, replay])
def test_a_failure_is_kept_although_its_open_dead_letter_is_resolved_right_after_the_insert(resolve):
    message_id = str(published())
    burying.bury(failure(message_id=message_id, error="the first"))
    tried: list[bool] = []
    statements: list[str] = []

    def resolve_in_between(execute, sql, params, many, context):
        if statements and "outbox_deadletter" in statements[-1] and not tried:
            tried.append(elsewhere(resolve))
        statements.append(sql if "INSERT" in sql else "")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(resolve_in_between):
        burying.bury(failure(message_id=message_id, error="the second"))

    assert tried
    assert DeadLetter.objects.filter(error="the second").exists()


def test_a_failure_that_waits_for_an_operators_transaction_is_kept_as_a_dead_letter_of_its_own():
    message_id = str(uuid.uuid4())
    burying.bury(failure(message_id=message_id, error="the first"))
    begun = threading.Event()
    buried = threading.Thread(target=bury_elsewhere, args=[message_id, begun])

    with transaction.atomic():
        discard()
        buried.start()
        begun.wait(10)
        wait_until_somebody_waits()
    buried.join(20)

    assert list(DeadLetter.objects.order_by("pk").values_list("resolution", "error")) == [
        ("discarded", "the first"),
        ("open", "the second"),
    ]


def bury_elsewhere(message_id, begun):
    begun.set()
    burying.bury(failure(message_id=message_id, error="the second"))
    connection.close()


def wait_until_somebody_waits():
    with connection.cursor() as cursor:
        for _ in range(2000):
            cursor.execute("SELECT pg_sleep(0.005), count(*) FROM pg_locks WHERE NOT granted")
            if cursor.fetchone()[1]:
                return
    raise AssertionError("nobody waits for the operator")


def test_other_errors_of_the_database_are_raised():
    with pytest.raises(IntegrityError):
        burying.bury(failure(message_id=str(uuid.uuid4()), attempts=-1))
    assert not DeadLetter.objects.exists()
