"""Lengths of queues, with the messages that a consumer has taken and not acknowledged."""

from __future__ import annotations

import http.server
import json
import threading
import uuid

import kombu
import pytest
from celery import Celery
from django.conf import settings

from outbox.broker import inspection, redis_transport
from tests.chaos.conftest import AMQP_URL, NO_RABBITMQ
from tests.rabbitmq_hosts import answers, own_connections


@pytest.fixture(params=["redis", "rabbitmq"])
def app(request):
    """An app with one new queue, on each broker."""
    url = {"redis": settings.BROKER_URL, "rabbitmq": AMQP_URL}[request.param]
    if request.param == "rabbitmq" and not answers(url):
        pytest.skip(NO_RABBITMQ)
    redis_transport.install()
    name = f"inspected-{uuid.uuid4()}"
    made = Celery("inspected", broker=url, set_as_current=False)
    options = {} if request.param == "rabbitmq" else {"unacked_key": f"unacked-{name}"}
    made.conf.update(
        task_queues=[kombu.Queue(name, kombu.Exchange(name, type="direct"), routing_key=name)],
        task_default_queue=name,
        task_create_missing_queues=False,
        broker_transport_options=options or own_connections(name),
    )
    yield made
    with made.connection_for_write() as connection:
        made.amqp.queues[name](connection.default_channel).delete()


def test_messages_are_counted_until_they_are_acknowledged(app):
    [name] = app.amqp.queues
    with app.connection_for_write() as connection:
        queue = app.amqp.queues[name](connection.default_channel)
        queue.declare()
        producer = connection.Producer()
        for number in range(3):
            producer.publish({"number": number}, exchange=queue.exchange, routing_key=name)
        message = queue.get()
        is_redis = connection.transport.driver_type == "redis"

        found = inspection.lengths(app)[name]
        assert found.ready == 2
        assert found.unacknowledged == (1 if is_redis else None)
        assert found.consumers == (None if is_redis else 0)
        message.ack()
        found = inspection.lengths(app)[name]
        assert (found.ready, found.unacknowledged) == (2, 0 if is_redis else None)


def test_a_queue_that_does_not_exist_yet_is_empty(app):
    [name] = app.amqp.queues
    assert inspection.lengths(app)[name].ready == 0


class Api(http.server.BaseHTTPRequestHandler):
    """Answers as RabbitMQ's management API does, to one account."""

    def do_GET(self):
        known = self.headers["Authorization"] == "Basic Z3Vlc3Q6c2VjcmV0"
        body = json.dumps([{"name": self.server.queue, "messages_unacknowledged": 7}, {"name": "new"}])
        self.send_response(200 if known else 401)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(("secret", "expected"), [("secret", 7), ("wrong", None)])
@pytest.mark.parametrize("app", ["rabbitmq"], indirect=True)
def test_the_management_api_knows_what_consumers_hold(app, secret, expected):
    """If it does not answer, only that number is not known."""
    [name] = app.amqp.queues
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api)
    server.queue = name
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://guest:{secret}@127.0.0.1:{server.server_port}"
        assert inspection.lengths(app, management=url)[name].unacknowledged == expected
    finally:
        server.shutdown()
        server.server_close()
