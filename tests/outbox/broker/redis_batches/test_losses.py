"""At no moment can messages that are taken from Redis in a batch be lost."""

from __future__ import annotations

import os
import signal

import pytest

from outbox import crash_points
from outbox.broker import redis_batches
from tests.outbox.broker.redis_batches.worker import Worker, put, unacknowledged
from tests.processes import eventually


@pytest.mark.parametrize("begins", ["with a message", "with an empty queue"])
def test_a_worker_that_is_killed_with_messages_loses_none(server, client, work, begins):
    """It is killed between taking and everything else, whether the messages were there or woke it."""
    texts = ["a", "b"] if begins == "with a message" else []
    put(server, *texts)
    child = os.fork()
    if child == 0:
        try:
            worker = Worker(server.url, "work", slots=2)
            crash_points.arm(lambda _: os.kill(os.getpid(), signal.SIGKILL))
            worker.turn_until(lambda: False)
        finally:
            os._exit(1)
    if not texts:
        eventually(lambda: client.info("clients")["blocked_clients"], "it waits")
        put(server, "a")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert unacknowledged(client) == (texts or ["a"])

    later = work("work", slots=9, visibility_timeout=0)
    later.channel.qos.restore_visible(num=None, interval=1)
    later.turn_until(lambda: len(later.taken) == len(texts or "a"))
    assert sorted(later.texts) == (texts or ["a"])
    assert all(message.delivery_info["redelivered"] for message in later.taken)


def test_a_worker_that_is_killed_before_it_takes_what_woke_it_loses_nothing(server, client, work):
    """Redis has moved the message for it, and it never sends the script."""
    put(server, "a", "b")
    client.blmove("work", redis_key("work"), 1, "RIGHT", "LEFT")
    worker = work("work", slots=2)
    worker.turn_until(lambda: worker.taken)

    assert worker.texts == unacknowledged(client) == ["a", "b"]


def redis_key(queue):
    return f"{queue}\x06\x16{redis_batches.redis_kinds.HANDOVER}"


def test_messages_of_a_batch_go_back_if_the_worker_loses_its_connection_meanwhile(server, client, work):
    put(server, *"abc")
    worker = work("work", slots=3)

    def refuse(message):
        raise ConnectionResetError

    worker.consumer.on_message = refuse
    with pytest.raises(ConnectionResetError):
        worker.turn_until(lambda: False)
    worker.link.close()

    assert client.llen("work") == 3
    assert not client.exists("unacked")


def test_messages_that_arrive_while_a_channel_closes_go_back(server, client, work):
    worker = work("work", slots=3)
    worker.turn()  # it waits for a message now
    worker.turn()
    put(server, *"ab")
    worker.link.close()

    assert not worker.taken
    assert client.llen("work") == 2
    assert not client.exists("unacked", redis_key("work"))


def test_a_server_that_has_forgotten_the_script_gets_it_again(server, client, work):
    put(server, *"abc")
    worker = work("work", slots=1)
    worker.turn_until(lambda: worker.taken)
    client.script_flush()
    worker.taken[0].ack()
    worker.turn_until(lambda: len(worker.taken) == 2)

    assert worker.texts == ["a", "b"]
    assert unacknowledged(client) == ["b"]
