"""A broker that goes away and comes back."""

from __future__ import annotations

import subprocess
import time

import pytest

from outbox.models import InboxEntry
from tests.chaos.conftest import Broker, answers, free_port, wait_for

pytestmark = [pytest.mark.processes, pytest.mark.django_db]

FINISH = "tests.chaos.tasks.finish"


@pytest.fixture
def own_redis(tmp_path):
    """Starts a Redis of this test's own, again and again on the same port."""
    port, running = free_port(), []

    def start():
        options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        running.append(
            subprocess.Popen(["redis-server", *options, "--dir", str(tmp_path)], stdout=subprocess.DEVNULL)
        )
        wait_for(lambda: answers(url), what="Redis")
        return running[-1]

    url = f"redis://127.0.0.1:{port}/0"
    start.url = url
    yield start
    for process in running:
        process.kill()
        process.wait()


def test_a_worker_is_back_within_three_seconds_of_its_broker(own_redis, start):
    server = own_redis()
    worker = start("worker", "-Q", "orders", "-c", "1", "-I", "tests.chaos.tasks", broker=own_redis.url)
    worker.wait_until_ready()

    server.kill()
    server.wait()
    wait_for(lambda: worker.times_said("Cannot connect to") >= 5, what="waits that have grown")
    own_redis()
    returned = time.monotonic()
    broker = Broker(own_redis.url)
    message_id = broker.send_task(FINISH)

    wait_for(lambda: InboxEntry.objects.filter(message_id=message_id).exists(), what="the task")
    assert time.monotonic() - returned < 3
    broker.close()
