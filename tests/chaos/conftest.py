"""Real workers in processes of their own, on the test database and the test brokers."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import kombu
import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connection, connections

import celeryconfig
from outbox.models import OutboxMessage

ROOT = Path(__file__).resolve().parent.parent.parent
AMQP_URL = os.environ.get("ORDERFLOW_TEST_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672//")
LONGEST_WAIT = 30


def wait_for(condition, *, within=LONGEST_WAIT, what=""):
    """Wait until `condition()` is true; return what it returned."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        if found := condition():
            return found
        time.sleep(0.02)
    what = what() if callable(what) else what
    raise AssertionError(f"{what or condition} did not come true within {within} s")


def database_url():
    """The test database, for other processes."""
    known = urlsplit(os.environ["DATABASE_URL"])
    return urlunsplit(known._replace(path=f"/{connection.settings_dict['NAME']}"))


class Process:
    """A Celery process of this test's own, with its output in a file."""

    def __init__(self, *arguments, broker, log):
        self.log = log
        environment = os.environ | {
            "DATABASE_URL": database_url(),
            "BROKER_URL": broker,
            "LOG_LEVEL": "INFO",
            "PYTHONUNBUFFERED": "1",
        }
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "orderflow", *arguments],
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def says(self, text):
        return text in self.log.read_text(errors="replace")

    def times_said(self, text):
        return self.log.read_text(errors="replace").count(text)

    @property
    def lives(self):
        return self.process.poll() is None

    def wait_until_ready(self):
        wait_for(lambda: self.says(" ready.") or not self.lives, what="a ready worker")
        assert self.lives, self.log.read_text(errors="replace")[-4000:]

    def stop(self):
        """Ask it to stop; kill it, with its children, if it does not. Returns the seconds it took."""
        started = time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(5)
        return time.monotonic() - started


class Broker:
    """A broker that workers of this test consume from, and a producer for messages of any shape."""

    def __init__(self, url):
        self.url = url
        self.link = kombu.Connection(url, connect_timeout=2)

    @property
    def is_redis(self):
        return self.url.startswith("redis")

    def send(self, body, *, headers=None, queue="orders", **properties):
        options = {"serializer": "json"} if not isinstance(body, bytes) else {}
        with self.link.channel() as channel:
            kombu.Producer(channel).publish(
                body,
                exchange=queue if self.is_redis else "",
                routing_key=queue,
                headers=headers,
                declare=[kombu.Queue(queue, kombu.Exchange(queue), routing_key=queue)] if self.is_redis else [],
                **options,
                **properties,
            )

    def send_task(self, name, *, message_id=None, task_id=None, queue="orders", headers=None, **properties):
        """Send a task as Celery would; returns the message id in its arguments."""
        message_id = str(message_id or uuid.uuid4())
        self.send(
            [[], {"message_id": message_id, "order_id": "order-1"}, {}],
            headers={"task": name, "id": task_id or str(uuid.uuid4()), "lang": "py", **(headers or {})},
            queue=queue,
            **properties,
        )
        return message_id

    def waiting(self, queue):
        with self.link.channel() as channel:
            if self.is_redis:
                return channel.client.llen(queue)
            return channel.queue_declare(queue, passive=True).message_count

    def purge(self):
        """Start from nothing: other tests' messages would be taken for this one's."""
        names = [*celeryconfig.QUEUES, *(f"{name}.dead" for name in celeryconfig.QUEUES)]
        with self.link.channel() as channel:
            if self.is_redis:
                prefixes = ("unacked", "_kombu", "celery-task-meta", *celeryconfig.QUEUES)
                keys = [key for key in channel.client.scan_iter() if key.decode().startswith(prefixes)]
                if keys:
                    channel.client.delete(*keys)
                return
        for name in names:
            with contextlib.suppress(Exception), self.link.channel() as channel:
                channel.queue_purge(name)

    def close(self):
        self.link.release()


def answers(url):
    try:
        with kombu.Connection(url, connect_timeout=2) as link:
            link.ensure_connection(max_retries=1, interval_start=0, timeout=3)
    except Exception:
        return False
    return True


def free_port():
    """A port below the ephemeral ones, where a client cannot connect to itself."""
    for port in range(20_100, 20_900):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port")


def written_message(message_id=None, **fields):
    """A message that was published before."""
    return OutboxMessage.objects.create(
        **{
            "event_name": "tests.happened",
            "event_version": 2,
            "key": "thing-1",
            "payload": {"about": "thing-1", "deed": "fell"},
            "correlation_id": "correlation-1",
            "status": OutboxMessage.Status.PUBLISHED,
            **({"id": message_id} if message_id else {}),
            **fields,
        }
    )


@pytest.fixture(scope="module")
def committed(django_db_setup, django_db_blocker):
    """The test database for all tests of a module together, emptied afterwards."""
    assert connection.settings_dict["NAME"].startswith("test_"), "mark the tests with django_db"
    with django_db_blocker.unblock():
        yield
        call_command("flush", interactive=False, verbosity=0)
        connections.close_all()


@pytest.fixture(scope="module")
def start(committed, tmp_path_factory):
    """Start Celery processes; they are stopped at the end."""
    running = []
    place = tmp_path_factory.mktemp("workers")

    def start(*arguments, broker):
        process = Process(*arguments, broker=broker, log=place / f"{len(running)}.log")
        running.append(process)
        return process

    yield start
    for process in running:
        if process.lives:
            process.process.send_signal(signal.SIGTERM)
    for process in running:
        process.stop()


@pytest.fixture
def start_briefly(start):
    """Start Celery processes for one test only."""
    running = []

    def start_one(*arguments, broker):
        running.append(start(*arguments, broker=broker))
        return running[-1]

    yield start_one
    for process in running:
        process.stop()


@pytest.fixture(scope="module")
def redis_broker():
    broker = Broker(settings.BROKER_URL)
    broker.purge()
    yield broker
    broker.purge()
    broker.close()


@pytest.fixture(scope="module")
def amqp_broker():
    """RabbitMQ, or None where none answers."""
    if not answers(AMQP_URL):
        yield None
        return
    broker = Broker(AMQP_URL)
    broker.purge()
    yield broker
    broker.purge()
    broker.close()
