"""Acknowledgements of messages from Redis go out together, and none is kept back for long."""

from __future__ import annotations

import time

import pytest

from outbox.broker import redis_batches
from tests.outbox.broker.redis_batches.worker import put, unacknowledged


def test_acknowledgements_go_with_the_next_request(server, client, work):
    put(server, *"abc")
    worker = work("work", slots=2)
    worker.turn_until(lambda: worker.taken)
    for message in worker.taken:
        message.ack()
    assert unacknowledged(client) == ["a", "b"]

    worker.turn_until(lambda: len(worker.taken) == 3)
    assert unacknowledged(client) == ["c"]


def test_acknowledgements_do_not_wait_for_the_next_message(server, client, work):
    put(server, *"ab")
    worker = work("work", slots=4)
    worker.turn_until(lambda: len(worker.taken) == 2)
    worker.turn()  # it waits for a message now
    for message in worker.taken:
        message.ack()

    began = time.monotonic()
    worker.turn_until(lambda: not client.hlen("unacked"))
    assert time.monotonic() - began < 0.5
    assert not unacknowledged(client)


@pytest.mark.parametrize("settle", ["ack", "reject"])
def test_acknowledgements_are_sent_before_a_channel_closes(server, client, work, settle):
    put(server, *"ab")
    worker = work("work", slots=2)
    worker.turn_until(lambda: worker.taken)
    getattr(worker.taken[0], settle)()
    worker.link.close()

    assert client.llen("work") == 1
    assert not client.exists("unacked", "unacked_index")


def test_acknowledgements_after_the_loop_has_ended_are_sent_at_once(server, client, work, monkeypatch):
    put(server, *"ab")
    worker = work("work", slots=2)
    worker.turn_until(lambda: worker.taken)
    monkeypatch.setattr(redis_batches, "GATHERED_FOR", 0)
    for message in worker.taken:
        message.ack()

    assert not client.exists("unacked")


def test_a_late_acknowledgement_does_not_remove_the_message_of_another_worker(server, client, work):
    """The first worker was so slow that the message was delivered again."""
    put(server, "a")
    slow, other = work("work", slots=1), work("work", slots=1)
    slow.turn_until(lambda: slow.taken)
    other.channel.qos.restore_by_tag(slow.taken[0].delivery_tag)
    other.turn_until(lambda: other.taken)

    slow.taken[0].ack()
    slow.channel.acknowledge_gathered()
    assert unacknowledged(client) == ["a"]
