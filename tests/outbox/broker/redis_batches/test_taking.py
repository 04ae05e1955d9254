"""A worker takes as many messages from Redis as it has free slots, from its queues in turn and by priority."""

from __future__ import annotations

import time
import types

import kombu
import pytest

from outbox.broker import redis_batches
from tests.outbox.broker.redis_batches.worker import put, unacknowledged


def test_as_many_messages_are_taken_together_as_there_are_free_slots(server, client, work):
    put(server, *"abcde")
    worker = work("work", slots=3)
    worker.turn_until(lambda: worker.taken)

    assert worker.texts == ["a", "b", "c"]
    assert unacknowledged(client) == ["a", "b", "c"]
    assert client.llen("work") == 2
    assert not worker.channel.qos.can_consume()


def test_a_batch_has_an_upper_limit(server, client, work, monkeypatch):
    put(server, *"abcde")
    worker = work("work", slots=0)
    monkeypatch.setattr(redis_batches, "MOST_AT_ONCE", 2)
    worker.turn_until(lambda: worker.taken)
    assert worker.texts == ["a", "b"]

    monkeypatch.setattr(redis_batches, "MOST_AT_ONCE", 16)
    monkeypatch.setattr(redis_batches, "MOST_BYTES", 10)
    worker.turn_until(lambda: len(worker.taken) > 2)
    assert worker.texts == ["a", "b", "c"]


def test_a_message_is_recorded_as_taken_at_the_time_of_the_server(server, client, work):
    put(server, "a")
    worker = work("work", slots=1)
    worker.turn_until(lambda: worker.taken)

    [(_, taken_at)] = client.zrange("unacked_index", 0, -1, withscores=True)
    seconds, _ = client.time()
    assert 0 <= seconds + 1 - taken_at < 10


def test_queues_take_turns_in_a_batch(server, client, work):
    put(server, *"abcd", queue="one")
    put(server, *"vw", queue="two")
    worker = work("one", "two", slots=5)
    worker.turn_until(lambda: worker.taken)

    assert worker.texts == ["a", "v", "b", "w", "c"]


def test_queues_in_a_fixed_order_are_emptied_one_after_the_other(server, client, work):
    put(server, *"vw", queue="two")
    put(server, *"abcd", queue="one")
    worker = work("one", "two", slots=5, queue_order_strategy="sorted")
    worker.turn_until(lambda: worker.taken)

    assert worker.texts == ["a", "b", "c", "d", "v"]


def test_higher_priorities_come_first(server, client, work):
    put(server, "later", priority=9)
    put(server, "soon", priority=3)
    put(server, "now")
    worker = work("work", slots=3)
    worker.turn_until(lambda: worker.taken)

    assert worker.texts == ["now", "soon", "later"]


def test_a_worker_that_has_seen_priorities_waits_for_all_of_them(server, client, work):
    put(server, "now", priority=3)
    worker = work("work", slots=4)
    worker.turn_until(lambda: worker.taken)
    worker.turn()  # it waits for a message now
    put(server, "soon", priority=9)

    began = time.monotonic()
    worker.turn_until(lambda: len(worker.taken) == 2)
    assert time.monotonic() - began < 0.7
    assert unacknowledged(client) == ["now", "soon"]


@pytest.mark.parametrize("queues", [("work",), ("work", "other")], ids=["one queue", "several queues"])
def test_a_waiting_worker_is_woken(server, client, work, queues):
    worker = work(*queues, slots=2)
    worker.turn()  # there is nothing
    worker.hub.call_later(0.05, put, server, "a")

    began = time.monotonic()
    worker.turn_until(lambda: worker.taken)
    assert time.monotonic() - began < 0.7
    assert worker.texts == unacknowledged(client) == ["a"]
    assert client.keys("work*") == []


def test_messages_that_need_no_acknowledgement_are_not_recorded(server, client, work):
    put(server, *"ab")
    worker = work("work", slots=2, no_ack=True)
    worker.turn_until(lambda: len(worker.taken) == 2)

    assert not client.exists("unacked")


def test_celery_may_decide_about_each_message(server, client, work):
    """As with `worker_disable_prefetch`, which replaces the method."""
    put(server, *"abc")
    worker = work("work", slots=0)
    worker.channel.qos.can_consume = types.MethodType(lambda _: len(worker.taken) < 2, worker.channel.qos)
    worker.turn_until(lambda: len(worker.taken) == 2)
    worker.turn()

    assert unacknowledged(client) == ["a", "b"]


def test_a_full_server_is_emptied(server, client, work):
    put(server, *"abc")
    worker = work("work", slots=3)
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", client.info("memory")["used_memory"] - 1)
    try:
        worker.turn_until(lambda: worker.channel._refused_until > 0)
        assert client.llen("work") + client.hlen("unacked") == 3
    finally:
        client.config_set("maxmemory", 0)
    worker.turn_until(lambda: len(worker.taken) == 3)
    assert unacknowledged(client) == ["a", "b", "c"]


def test_a_server_without_the_command_that_moves_one_message_wakes_a_worker_all_the_same(server, client, work):
    """It exists since Redis 6.2."""
    client.acl_setuser("limited", enabled=True, passwords=["+secret"], keys="*", channels="*", reset=True)
    client.execute_command("ACL", "SETUSER", "limited", "+@all", "-blmove")
    worker = work("work", slots=3, url=server.url.replace("//", "//limited:secret@"))
    worker.turn()
    put(server, *"ab")
    worker.turn_until(lambda: len(worker.taken) == 2)

    assert worker.texts == unacknowledged(client) == ["a", "b"]


def test_keys_may_have_a_prefix(server, client, work):
    with kombu.Connection(server.url, transport_options={"global_keyprefix": "shop-"}) as link:
        for text in "ab":
            link.Producer().publish(text, routing_key="work", serializer="json")
    worker = work("work", slots=1, global_keyprefix="shop-")
    worker.turn_until(lambda: worker.taken)
    worker.taken[0].ack()
    worker.turn_until(lambda: len(worker.taken) == 2)

    assert worker.texts == ["a", "b"]
    assert client.hlen("shop-unacked") == 1
