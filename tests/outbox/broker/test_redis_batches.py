"""A worker takes as many messages from Redis as it has free slots; at no moment can they be lost."""

from __future__ import annotations

import json
import os
import signal
import time
import types

import kombu
import pytest
from kombu.asynchronous import Hub

from outbox import crash_points
from outbox.broker import redis_batches, redis_transport
from tests.processes import RedisServer, eventually

OPTIONS = {"socket_timeout": 3, "visibility_timeout": 3600, "unacked_restore_interval": 3600}


@pytest.fixture(scope="module", autouse=True)
def installed():
    redis_transport.install()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = RedisServer(tmp_path_factory.mktemp("redis"), durable=False)
    yield server
    server.kill()


@pytest.fixture
def client(server):
    with server.client() as client:
        client.flushall()
        yield client


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


def test_as_many_messages_are_taken_together_as_there_are_free_slots(server, client, work):
    put(server, *"abcde")
    worker = work("work", slots=3)
    worker.turn_until(lambda: worker.taken)

    assert worker.texts == ["a", "b", "c"]
    assert unacknowledged(client) == ["a", "b", "c"]
    assert client.llen("work") == 2
    assert not worker.channel.qos.can_consume()


def test_a_batch_has_an_upper_limit(server, client, work, monkeypatch):
    put(server, *"abcde")
    worker = work("work", slots=0)
    monkeypatch.setattr(redis_batches, "MOST_AT_ONCE", 2)
    worker.turn_until(lambda: worker.taken)
    assert worker.texts == ["a", "b"]

    monkeypatch.setattr(redis_batches, "MOST_AT_ONCE", 16)
    monkeypatch.setattr(redis_batches, "MOST_BYTES", 10)
    worker.turn_until(lambda: len(worker.taken) > 2)
    assert worker.texts == ["a", "b", "c"]


def test_a_message_is_recorded_as_taken_at_the_time_of_the_server(server, client, work):
    put(server, "a")
    worker = work("work", slots=1)
    worker.turn_until(lambda: worker.taken)

    [(_, taken_at)] = client.zrange("unacked_index", 0, -1, withscores=True)
    seconds, _ = client.time()
    assert 0 <= seconds + 1 - taken_at < 10


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


def test_queues_take_turns_in_a_batch(server, client, work):
    put(server, *"abcd", queue="one")
    put(server, *"vw", queue="two")
    worker = work("one", "two", slots=5)
    worker.turn_until(lambda: worker.taken)

    assert worker.texts == ["a", "v", "b", "w", "c"]


def test_queues_in_a_fixed_order_are_emptied_one_after_the_other(server, client, work):
    put(server, *"vw", queue="two")
    put(server, *"abcd", queue="one")
    worker = work("one", "two", slots=5, queue_order_strategy="sorted")
    worker.turn_until(lambda: worker.taken)

    assert worker.texts == ["a", "b", "c", "d", "v"]


def test_higher_priorities_come_first(server, client, work):
    put(server, "later", priority=9)
    put(server, "soon", priority=3)
    put(server, "now")
    worker = work("work", slots=3)
    worker.turn_until(lambda: worker.taken)

    assert worker.texts == ["now", "soon", "later"]


def test_a_worker_that_has_seen_priorities_waits_for_all_of_them(server, client, work):
    put(server, "now", priority=3)
    worker = work("work", slots=4)
    worker.turn_until(lambda: worker.taken)
    worker.turn()  # it waits for a message now
    put(server, "soon", priority=9)

    began = time.monotonic()
    worker.turn_until(lambda: len(worker.taken) == 2)
    assert time.monotonic() - began < 0.7
    assert unacknowledged(client) == ["now", "soon"]


@pytest.mark.parametrize("queues", [("work",), ("work", "other")], ids=["one queue", "several queues"])
def test_a_waiting_worker_is_woken(server, client, work, queues):
    worker = work(*queues, slots=2)
    worker.turn()  # there is nothing
    worker.hub.call_later(0.05, put, server, "a")

    began = time.monotonic()
    worker.turn_until(lambda: worker.taken)
    assert time.monotonic() - began < 0.7
    assert worker.texts == unacknowledged(client) == ["a"]
    assert client.keys("work*") == []


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


def test_messages_that_need_no_acknowledgement_are_not_recorded(server, client, work):
    put(server, *"ab")
    worker = work("work", slots=2, no_ack=True)
    worker.turn_until(lambda: len(worker.taken) == 2)

    assert not client.exists("unacked")


def test_celery_may_decide_about_each_message(server, client, work):
    """As with `worker_disable_prefetch`, which replaces the method."""
    put(server, *"abc")
    worker = work("work", slots=0)
    worker.channel.qos.can_consume = types.MethodType(lambda _: len(worker.taken) < 2, worker.channel.qos)
    worker.turn_until(lambda: len(worker.taken) == 2)
    worker.turn()

    assert unacknowledged(client) == ["a", "b"]


def test_a_server_that_has_forgotten_the_script_gets_it_again(server, client, work):
    put(server, *"abc")
    worker = work("work", slots=1)
    worker.turn_until(lambda: worker.taken)
    client.script_flush()
    worker.taken[0].ack()
    worker.turn_until(lambda: len(worker.taken) == 2)

    assert worker.texts == ["a", "b"]
    assert unacknowledged(client) == ["b"]


def test_a_full_server_is_emptied(server, client, work):
    put(server, *"abc")
    worker = work("work", slots=3)
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", client.info("memory")["used_memory"] - 1)
    try:
        worker.turn_until(lambda: worker.channel._refused_until > 0)
        assert client.llen("work") + client.hlen("unacked") == 3
    finally:
        client.config_set("maxmemory", 0)
    worker.turn_until(lambda: len(worker.taken) == 3)
    assert unacknowledged(client) == ["a", "b", "c"]


def test_a_server_without_the_command_that_moves_one_message_wakes_a_worker_all_the_same(server, client, work):
    """It exists since Redis 6.2."""
    client.acl_setuser("limited", enabled=True, passwords=["+secret"], keys="*", channels="*", reset=True)
    client.execute_command("ACL", "SETUSER", "limited", "+@all", "-blmove")
    worker = work("work", slots=3, url=server.url.replace("//", "//limited:secret@"))
    worker.turn()
    put(server, *"ab")
    worker.turn_until(lambda: len(worker.taken) == 2)

    assert worker.texts == unacknowledged(client) == ["a", "b"]


def test_keys_may_have_a_prefix(server, client, work):
    with kombu.Connection(server.url, transport_options={"global_keyprefix": "shop-"}) as link:
        for text in "ab":
            link.Producer().publish(text, routing_key="work", serializer="json")
    worker = work("work", slots=1, global_keyprefix="shop-")
    worker.turn_until(lambda: worker.taken)
    worker.taken[0].ack()
    worker.turn_until(lambda: len(worker.taken) == 2)

    assert worker.texts == ["a", "b"]
    assert client.hlen("shop-unacked") == 1


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
