"""A restored database is detected by its changed identity or by the external witness."""

from __future__ import annotations

import datetime as dt
import json
import threading

import pytest
from django.conf import settings
from django.db import connection, connections

from orderflow.shared_state.witness import KEY, RedisWitness
from orders import services
from orders.reconciliation import numbers
from outbox import testing
from outbox.database import clock
from outbox.models import DatabaseIdentity, Restore
from outbox.verification import restores
from tests.factories import place

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def identity():
    """The database has recorded its identity."""
    restores.check()
    return DatabaseIdentity.objects.get()


@pytest.fixture
def witness():
    RedisWitness().remember("")
    yield RedisWitness()
    RedisWitness().remember("")


def believe(identity, **changed):
    """Change the recorded identity, as if the data was written elsewhere."""
    identity.names |= changed
    identity.save()


@pytest.mark.parametrize("name", ["system", "timeline", "database", "table"])
def test_data_that_was_copied_elsewhere_counts_as_restored(identity, name):
    believe(identity, **{name: "another"})

    assert restores.check() is not None
    assert restores.check() is None
    assert f"{name} another → " in Restore.objects.get().evidence


@pytest.mark.parametrize(
    ("names", "is_failover"), [({"timeline": "1"}, True), ({"timeline": "1", "system": "1"}, False)]
)
def test_a_failover_is_distinguished_from_a_restored_backup(identity, names, is_failover):
    place()
    believe(identity, **names)

    assert restores.check().is_failover is is_failover


def test_a_recovery_to_an_hour_ago_is_no_failover(identity):
    place()
    testing.pass_time(dt.timedelta(hours=1))
    believe(identity, timeline="1")

    assert not restores.check().is_failover


def test_a_failover_that_is_declared_a_restore_becomes_one(identity):
    place()
    believe(identity, timeline="1")
    restores.check()
    restores.declare(clock.now() - dt.timedelta(minutes=1), by="on call")

    assert not Restore.objects.get().is_failover


def test_a_new_connection_detects_a_restore_before_it_is_used(identity):
    believe(identity, database="another")
    connection.close()
    place()

    assert Restore.objects.count() == 1


def test_many_connections_at_once_record_one_restore(identity):
    believe(identity, system="another")
    together = threading.Barrier(8)

    def open_session():
        together.wait()
        try:
            connection.ensure_connection()
        finally:
            connections.close_all()

    threads = [threading.Thread(target=open_session) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert Restore.objects.count() == 1


def test_a_restart_of_the_server_is_no_restore(identity, witness):
    restores.watch()
    DatabaseIdentity.objects.update(started_at="yesterday")

    assert restores.check() is None
    assert DatabaseIdentity.objects.get().started_at == identity.started_at


def test_files_restored_in_place_are_detected_by_the_witness_in_redis(identity, witness):
    restores.watch()
    known = json.loads(witness.recall())
    witness.remember(json.dumps(known | {"written": known["written"] + 10**9}))
    DatabaseIdentity.objects.update(started_at="yesterday")

    assert restores.check() is not None
    assert "the server had written up to" in Restore.objects.get().evidence


def test_beat_detects_a_restore_without_a_new_connection(identity, witness):
    restores.watch()
    known = json.loads(witness.recall())
    witness.remember(json.dumps(known | {"written": known["written"] + 10**9}))

    assert restores.watch() is not None
    assert restores.watch() is None


def test_a_witness_of_another_database_is_ignored(identity, witness):
    restores.watch()
    known = json.loads(witness.recall())
    witness.remember(json.dumps(known | {"database": "another", "written": known["written"] + 10**9}))

    assert restores.watch() is None


def test_a_redis_outage_holds_nothing_up(identity, monkeypatch):
    monkeypatch.setattr(settings, "REDIS_URL", "redis://127.0.0.1:1/0")
    DatabaseIdentity.objects.update(started_at="yesterday")

    assert restores.watch() is None


def test_the_record_in_redis_expires(identity, witness):
    import redis

    restores.watch()
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        assert 0 < client.ttl(KEY) <= dt.timedelta(days=90).total_seconds()


@pytest.mark.parametrize(
    ("last", "seconds", "first"),
    [(1000, 0, 100_000), (1042, 3600, 10_000_000), (99_999, 0, 200_000), (10_000_001, 7200, 20_000_000)],
)
def test_numbers_continue_above_all_that_may_have_been_assigned(last, seconds, first):
    assert numbers.first_after(last, dt.timedelta(seconds=seconds)) == first
    assert first >= last + seconds * numbers.MOST_PER_SECOND


def test_after_a_failover_no_customer_waits_for_a_person(world, drain):
    place(contact=services.Contact(email="ada@example.com", phone="+447700900001", push_token="device-1"))
    Restore.objects.create(noted_at=clock.now(), data_until=clock.now(), is_failover=True)
    drain()

    assert (world.smtp.count(), world.sms.count(), world.push.count()) == (2, 2, 2)
