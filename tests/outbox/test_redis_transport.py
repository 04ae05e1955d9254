"""One client per channel, for as long as its connections are those of the same pool."""

from __future__ import annotations

import pytest
from celery import current_app
from flower.utils import broker as flower
from kombu.transport import redis as stock

from outbox import redis_transport


@pytest.fixture
def channel():
    if not current_app.conf.broker_url.startswith("redis"):
        pytest.skip("the broker of these tests is not Redis")
    with current_app.connection_for_write() as link:
        yield link.default_channel


def test_it_is_what_the_project_uses(channel):
    assert type(channel) is redis_transport.Channel


def test_flower_can_tell_which_broker_it_is(channel):
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


def test_a_client_that_waits_is_its_own(channel):
    assert channel._create_client(asynchronous=True) is not channel._create_client(asynchronous=True)


def test_a_new_pool_gets_a_new_client(channel):
    before = channel._create_client()
    channel._disconnect_pools()
    after = channel._create_client()

    assert after is not before
    assert after.ping()
