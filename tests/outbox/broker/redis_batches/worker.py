"""The event loop of a worker that takes messages from Redis, and what a test asks of its server."""

from __future__ import annotations

import json
import time

import kombu
from kombu.asynchronous import Hub

OPTIONS = {"socket_timeout": 3, "visibility_timeout": 3600, "unacked_restore_interval": 3600}


class Worker:
    """The event loop of a worker with its own connection, and the messages that were delivered to it."""

    def __init__(self, url, *queues, slots, no_ack=False, **options):
        self.taken = []
        self.hub = Hub()
        self.hub.call_repeatedly(0.02, lambda: None)  # no turn takes longer
        self.link = kombu.Connection(url, transport_options=OPTIONS | options)
        self.link.transport.register_with_event_loop(self.link.connection, self.hub)
        self.channel = self.link.default_channel
        self.consumer = self.link.Consumer(
            [kombu.Queue(queue) for queue in queues],
            on_message=self.taken.append,
            prefetch_count=slots,
            no_ack=no_ack,
        )
        self.consumer.consume()
        self._loop = self.hub.create_loop()

    @property
    def texts(self):
        return [message.payload for message in self.taken]

    def turn(self):
        """Let the loop go on for one iteration."""
        next(self._loop)

    def turn_until(self, condition):
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline, self.texts
            self.turn()


def put(server, *texts, queue="work", priority=0):
    with kombu.Connection(server.url) as link, link.Producer() as producer:
        for text in texts:
            producer.publish(text, routing_key=queue, priority=priority, serializer="json")


def unacknowledged(client):
    """The texts that Redis keeps for workers; both of its records must agree."""
    kept = client.hgetall("unacked")
    assert sorted(kept) == sorted(client.zrange("unacked_index", 0, -1))
    return sorted(json.loads(kombu_body(json.loads(item)[0])) for item in kept.values())


def kombu_body(item):
    with kombu.Connection("memory://") as link:
        return link.default_channel.decode_body(item["body"], item["properties"]["body_encoding"])
