"""The Redis transport: one client per channel and pool, and replies that expire."""

from __future__ import annotations

import uuid

import kombu
import pytest
import redis
from celery import current_app
from flower.utils import broker as flower
from kombu.transport import redis as stock

from outbox.broker import redis_transport
from tests.processes import RedisServer


@pytest.fixture
def channel():
    if not current_app.conf.broker_url.startswith("redis"):
        pytest.skip("the broker of these tests is not Redis")
    with current_app.connection_for_write() as link:
        yield link.default_channel


def test_it_is_what_the_project_uses(channel):
    assert type(channel) is redis_transport.RedisChannel


def test_flower_recognises_the_type_of_the_broker(channel):
    with current_app.connection() as link:
        assert isinstance(flower.Broker(link.as_uri(include_password=True)), flower.Redis)


def test_operations_share_a_client(channel, monkeypatch):
    made = []
    make = stock.Channel._create_client
    monkeypatch.setattr(
        stock.Channel, "_create_client", lambda self, **options: made.append(options) or make(self, **options)
    )
    for _ in range(3):
        channel.queue_declare("a-test")
        channel._put("a-test", {"properties": {"priority": 0}})
        assert channel._purge("a-test")
        channel.queue_delete("a-test")

    assert made == [{}]


def test_a_blocking_client_is_separate(channel):
    assert channel._create_client(asynchronous=True) is not channel._create_client(asynchronous=True)


def test_a_new_pool_gets_a_new_client(channel):
    before = channel._create_client()
    channel._disconnect_pools()
    after = channel._create_client()

    assert after is not before
    assert after.ping()


def forever(channel):
    """Keys that nothing removes, except the bindings of permanent queues."""
    return {
        name.decode()
        for name in channel.client.scan_iter("*pidbox*")
        if channel.client.ttl(name) < 0 and channel.client.type(name) == b"list"
    }


def test_a_reply_that_nobody_reads_expires(channel):
    """For example the reply of a slow worker to a process that was killed."""
    gone = f"{uuid.uuid4()}.reply.celery.pidbox"
    channel._put(gone, {"properties": {"priority": 0}})

    assert 0 < channel.client.ttl(gone) <= redis_transport.REPLY_KEPT
    channel.client.delete(gone)


def test_replies_of_workers_leave_no_key_behind(channel):
    """Workers do not know the expiry of the queue to which they reply."""
    with current_app.connection_for_write() as worker:
        mailbox = current_app.control.mailbox(channel.connection.client)
        asking = mailbox.reply_queue(channel)
        asking.declare()
        worker.default_channel.typeof(asking.exchange.name)
        mailbox._publish_reply(
            {"ok": "pong"}, asking.exchange.name, asking.routing_key, "ticket", worker.default_channel
        )
        assert channel.client.llen(asking.name) == 1
        assert not forever(channel)
    channel.queue_delete(asking.name)


def test_the_reply_queue_of_a_killed_process_is_removed(channel, monkeypatch):
    bindings = "_kombu.binding.reply.celery.pidbox"

    def ask():
        name = f"{uuid.uuid4()}.reply.celery.pidbox"
        channel._expires[name] = 10_000
        channel._queue_bind("reply.celery.pidbox", name, "", name)
        return channel.sep.join((name, "", name)).encode()

    killed = ask()
    assert channel.client.sismember(bindings, killed)
    monkeypatch.setattr(redis_transport, "REQUEST_KEPT", 0)
    asks_now = ask()

    assert not channel.client.sismember(bindings, killed)
    assert channel.client.sismember(bindings, asks_now)


@pytest.fixture
def server(tmp_path):
    server = RedisServer(tmp_path, durable=False)
    yield server
    server.thaw()
    server.kill()


@pytest.mark.parametrize("settle", [kombu.Message.ack, kombu.Message.reject, kombu.Message.requeue])
def test_a_failed_acknowledgement_does_not_block_the_next_message(server, settle):
    """Redis hangs while a worker that takes one message at a time has finished one."""
    taken = []
    options = {"socket_timeout": 0.5, "visibility_timeout": 3600}
    with kombu.Connection(server.url, transport_options=options) as link:
        queue = link.SimpleQueue("a-test")
        queue.put("first")
        queue.put("second")
        with link.Consumer(queue.queue, on_message=taken.append, prefetch_count=1):
            link.drain_events(timeout=10)
            server.freeze()
            with pytest.raises(redis.exceptions.TimeoutError):
                settle(taken[0])
            server.thaw()
            link.drain_events(timeout=10)

    assert [message.payload for message in taken] == ["first", "second"]
