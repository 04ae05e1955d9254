"""A Redis of its own, and workers that take messages from it."""

from __future__ import annotations

import pytest

from outbox.broker import redis_transport
from tests.outbox.broker.redis_batches.worker import Worker
from tests.processes import RedisServer


@pytest.fixture(scope="module", autouse=True)
def installed():
    redis_transport.install()


@pytest.fixture(scope="package")
def server(tmp_path_factory):
    server = RedisServer(tmp_path_factory.mktemp("redis"), durable=False)
    yield server
    server.kill()


@pytest.fixture
def client(server):
    with server.client() as client:
        client.flushall()
        yield client


@pytest.fixture
def work(server, client):
    workers = []

    def begin(*queues, slots, url=server.url, **options):
        workers.append(Worker(url, *queues, slots=slots, **options))
        return workers[-1]

    yield begin
    for worker in workers:
        worker.link.close()
        worker.hub.close()
