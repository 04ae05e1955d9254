"""Items in Redis that are not messages stay there until they are recorded."""

from __future__ import annotations

import json

import pytest
from celery import current_app

from outbox.broker import redis_items

QUEUE = "tests-items"


@pytest.fixture
def channel():
    if not current_app.conf.broker_url.startswith("redis"):
        pytest.skip("the broker of these tests is not Redis")
    with current_app.connection_for_read() as link:
        channel = link.default_channel
        channel.unacked_key = channel.qos.unacked_key = "tests-unacked"
        channel.unacked_index_key = channel.qos.unacked_index_key = "tests-unacked-index"
        yield channel
        channel.client.delete("tests-unacked", "tests-unacked-index", QUEUE)


class Notes:
    """Records the items that are given up, unless it is down."""

    def __init__(self):
        self.is_down, self.items = True, []

    def __call__(self, item, error, queue):
        if not self.is_down:
            self.items.append((item, type(error).__name__, queue))
        return not self.is_down


def kept(channel):
    return channel.client.hgetall("tests-unacked")


@pytest.mark.parametrize(
    ("item", "why"),
    [("no message", "JSONDecodeError"), ("5", "NoMessage"), ("[" * 100_000, "RecursionError")],
    ids=["a text", "a number", "brackets"],
)
def test_an_item_is_kept_until_it_is_recorded(channel, item, why):
    notes = channel.connection.give_up = Notes()
    channel.connection._deliver(redis_items.loads(item), QUEUE)
    [tag] = kept(channel)

    channel.qos.restore_by_tag(tag)
    assert list(kept(channel)) == [tag]

    notes.is_down = False
    channel.qos.restore_by_tag(tag)
    assert notes.items == [(item[: redis_items.KEPT], why, QUEUE)]
    assert not kept(channel)
    assert not channel.client.zcard("tests-unacked-index")


def test_an_item_that_is_recorded_at_once_is_not_kept(channel):
    notes = channel.connection.give_up = Notes()
    notes.is_down = False
    channel.connection._deliver(redis_items.loads("no message"), QUEUE)

    assert notes.items == [("no message", "JSONDecodeError", QUEUE)]
    assert not kept(channel)


def test_an_unrecorded_item_stays_unacknowledged(channel):
    channel.client.hset("tests-unacked", "tag", "no message")
    channel.qos.restore_by_tag("tag")

    assert kept(channel) == {b"tag": b"no message"}


def test_an_unacknowledged_message_returns_to_its_queue(channel):
    message = channel.prepare_message("body", headers={"task": "a", "id": "1"})
    channel._inplace_augment_message(message, "", QUEUE)
    tag = message["properties"]["delivery_tag"]
    channel.client.hset("tests-unacked", tag, json.dumps([message, "", QUEUE]))
    channel.qos.restore_by_tag(tag)

    assert channel.client.llen(QUEUE) == 1
    assert not kept(channel)
