"""What is no message in a list of Redis is given up, once that is recorded."""

from __future__ import annotations

import pytest

from tests.outbox.broker.redis_batches.worker import put, unacknowledged


class Notes:
    """Records the items that are given up, unless it is down."""

    def __init__(self):
        self.is_down, self.items = False, []

    def __call__(self, item, error, queue):
        if not self.is_down:
            self.items.append((item, queue))
        return not self.is_down


def test_an_invalid_item_among_messages_is_given_up(server, client, work):
    worker = work("work", slots=3)
    notes = worker.channel.connection.give_up = Notes()
    put(server, "a")
    client.lpush("work", "no message")
    put(server, "b")
    worker.turn_until(lambda: len(worker.taken) == 2)
    worker.channel.acknowledge_gathered()

    assert notes.items == [("no message", "work")]
    assert unacknowledged(client) == ["a", "b"]


@pytest.mark.parametrize("item", ["no message", "5", '{"properties": 5}'])
def test_an_invalid_item_is_kept_until_it_is_recorded(server, client, work, item):
    """Also if the worker is killed before it has looked at the item."""
    notes = Notes()
    client.lpush("work", item)
    worker = work("work", slots=1, visibility_timeout=0)
    worker.channel.connection.deliver_taken = lambda *_, **__: None  # as if it were killed
    worker.turn_until(lambda: client.hlen("unacked"))
    restorer = work("other", slots=1, visibility_timeout=0)
    restorer.channel.connection.give_up = notes
    notes.is_down = True
    restorer.channel.qos.restore_visible(num=None, interval=1)
    assert client.hlen("unacked") == 1

    notes.is_down = False
    restorer.channel.qos.restore_visible(num=None, interval=1)
    assert not client.exists("unacked", "unacked_index")
    [(found, _)] = notes.items
    assert found == item


def test_an_invalid_item_occupies_no_slot_while_the_database_is_down(server, client, work):
    worker = work("work", slots=1)
    notes = worker.channel.connection.give_up = Notes()
    notes.is_down = True
    client.lpush("work", "no message")
    put(server, "a")
    worker.turn_until(lambda: worker.taken)

    assert client.hlen("unacked") == 2
