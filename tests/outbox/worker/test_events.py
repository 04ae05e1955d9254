"""Events for Flower are gathered, and cost nothing where nobody receives them."""

from __future__ import annotations

import kombu
import pytest
from celery import Celery
from kombu.transport import redis as stock

import outbox
from outbox.worker import events, installation
from tests.processes import RedisServer


@pytest.fixture
def app(tmp_path):
    server = RedisServer(tmp_path, durable=False)
    with Celery("events", broker=server.url, set_as_current=False) as app:
        outbox.install(app)
        yield app
    server.kill()


@pytest.fixture
def encoded(monkeypatch):
    """The payloads that are encoded for the broker."""
    found = []
    dumps = stock.dumps
    monkeypatch.setattr(stock, "dumps", lambda value: found.append(value) or dumps(value))
    return found


def test_events_are_sent_only_while_somebody_receives_them(app, encoded):
    received = []
    with app.connection_for_write() as link, app.connection_for_read() as listening:
        dispatcher = app.events.Dispatcher(link, buffer_group=["task"])
        assert isinstance(dispatcher, events.Dispatcher)
        dispatcher.send("task-started", uuid="unheard")
        dispatcher.flush()
        assert not encoded

        receiver = app.events.Receiver(listening, handlers={"task-started": received.append})
        with listening.Consumer(receiver.queue, callbacks=[receiver._receive], no_ack=True):
            listening.drain_events(timeout=10)  # the confirmation that it has subscribed
            dispatcher.send("task-started", uuid="first")
            dispatcher.send("task-started", uuid="second")
            dispatcher.flush()
            listening.drain_events(timeout=10)

    assert [event["uuid"] for event in received] == ["first", "second"]
    assert len(encoded) == 1


def test_a_batch_is_larger_than_celerys(app, encoded, monkeypatch):
    with app.connection_for_write() as link:
        dispatcher = app.events.Dispatcher(link, buffer_group=["task"])
        monkeypatch.setattr(dispatcher.producer.channel, "is_heard", lambda *_: True)
        for _ in range(events.MOST_GATHERED - 1):
            dispatcher.send("task-started", uuid="one")
        assert not encoded
        dispatcher.send("task-started", uuid="one")

    assert len(encoded) == 1


def test_events_to_other_brokers_are_always_sent(app):
    with kombu.Connection("memory://") as link, Celery("other", set_as_current=False) as other:
        other.events.dispatcher_cls = installation.DISPATCHER
        queue = kombu.Queue("ears", kombu.Exchange("celeryev", "topic"), "#")(link.default_channel)
        queue.declare()
        dispatcher = other.events.Dispatcher(link, buffer_group=["task"])
        dispatcher.send("task-started", uuid="one")
        dispatcher.flush()

        assert queue.get(no_ack=True).payload[0]["uuid"] == "one"
