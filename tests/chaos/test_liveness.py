"""
The probe of docker-compose.yml, on real processes: a stuck loop fails it, an outage does not.

Nobody waits a minute here: the file is set back by more than that, as if nothing had touched it since.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from outbox.worker import liveness
from tests import processes
from tests.chaos.conftest import NO_RABBITMQ, TASKS
from tests.deployment.compose import BASE, together
from tests.processes import ROOT, Network, RedisServer, environment, eventually

pytestmark = [pytest.mark.slow, pytest.mark.processes, pytest.mark.django_db]

PROBE = together(BASE)["services"]["worker-orders"]["healthcheck"]["test"]
KINDS = ("threads", "prefork", "solo", "beat")
LONGER_THAN_A_TURN = 3.5


class Watched:
    """A process with a liveness file."""

    def __init__(self, stack, kind, folder, **settings):
        self.file = folder / f"{kind}-alive"
        settings["LIVENESS_FILE"] = str(self.file)
        if kind == "beat":
            self.process = stack.beat(**settings)
        elif kind == "solo":
            self.process = stack.relay(**settings)
        else:
            self.process = stack.worker(kind, "push", pool=kind, concurrency=2, **settings)

    def is_alive(self):
        """Ask as the container engine asks, with nothing but this process's path."""
        kind, command = PROBE
        assert kind == "CMD-SHELL"
        probe = command.replace("$$", "$")
        settings = {"LIVENESS_FILE": str(self.file), "PATH": "/usr/bin:/bin"}
        return not subprocess.run(["sh", "-c", probe], env=settings, capture_output=True).returncode

    def is_touched(self):
        """Set the file back by more than a minute; return whether the process touches it again."""
        self.let_a_minute_pass()
        end = time.monotonic() + LONGER_THAN_A_TURN
        while not (alive := self.is_alive()) and time.monotonic() < end:
            time.sleep(0.1)
        return alive

    def let_a_minute_pass(self):
        past = time.time() - 61
        os.utime(self.file, (past, past))
        assert not self.is_alive()


@pytest.fixture(params=["redis", "rabbitmq"])
def broker(request, committed, tmp_path, amqp_broker):
    """A broker that can be taken away: Redis as a server, RabbitMQ as a network."""
    if request.param == "redis":
        server = RedisServer(tmp_path)
        yield server.url, server.kill, server.start
        server.kill()
    elif amqp_broker is None:
        pytest.skip(NO_RABBITMQ)
    else:
        network = Network(amqp_broker.url, port=5672)
        yield network.url, network.cut, network.open
        network.cut()


@pytest.fixture
def started(broker, tmp_path):
    """A process of each kind, all of them ready."""
    url = broker[0]
    with processes.stack(tmp_path) as stack:
        watched = {kind: Watched(stack, kind, tmp_path, BROKER_URL=url) for kind in KINDS}
        for kind, one in watched.items():
            if kind != "beat":
                one.process.wait_until_ready()
            eventually(one.file.exists, f"the file of {kind}")
        yield watched


def test_a_stuck_process_fails_its_probe_and_an_outage_of_the_broker_does_not(started, broker):
    _, take_away, bring_back = broker
    assert {kind: one.is_touched() for kind, one in started.items()} == dict.fromkeys(KINDS, True)

    take_away()
    for _ in range(2):  # a connection that is lost, then one that is refused
        assert {kind: one.is_touched() for kind, one in started.items()} == dict.fromkeys(KINDS, True)
    bring_back()

    for one in started.values():
        one.process.freeze()
        one.let_a_minute_pass()
    time.sleep(2)
    assert not any(one.is_alive() for one in started.values())

    for one in started.values():
        one.process.thaw()
    eventually(lambda: all(one.is_alive() for one in started.values()), "all touch their files again")


@pytest.fixture
def database(committed, settings):
    """The test database behind a network."""
    url = environment()["DATABASE_URL"]
    network = Network(url, port=5432)
    name = url.rpartition("/")[2]
    yield network, f"{network.url.rpartition('/')[0]}/{name}"
    with contextlib.suppress(ProcessLookupError):
        os.kill(network.pid, signal.SIGCONT)
    network.cut()


@pytest.mark.parametrize("outage", ["refused", "silent"])
def test_an_outage_of_the_database_does_not_fail_the_probe_of_a_relay(outage, database, redis_broker, tmp_path):
    network, url = database
    with processes.stack(tmp_path) as stack:
        relay = Watched(stack, "solo", tmp_path, DATABASE_URL=url)
        relay.process.wait_until_ready()
        clock = Watched(stack, "beat", tmp_path)
        eventually(clock.file.exists, "beat's file")
        time.sleep(2)  # a session for the periodic tasks

        network.cut() if outage == "refused" else os.kill(network.pid, signal.SIGSTOP)

        time.sleep(3)
        relay.let_a_minute_pass()
        eventually(relay.is_alive, "the relay touches its file", within=12)
        relay.let_a_minute_pass()
        eventually(relay.is_alive, "the relay touches its file again", within=12)


BLOCKING_LOOP = """
import celery, django; django.setup()
import outbox
app = celery.Celery("blocking", broker="memory://", set_as_current=True)
outbox.install(app)
app.Worker(pool="solo", queues="celery", without_mingle=True, without_gossip=True).start()
"""


def test_a_blocking_loop_touches_the_file_too(tmp_path):
    file = tmp_path / "alive"
    settings = {"LIVENESS_FILE": str(file), "DJANGO_SETTINGS_MODULE": "orderflow.settings"}
    worker = subprocess.Popen([sys.executable, "-c", BLOCKING_LOOP], cwd=ROOT, env=environment() | settings)
    try:
        eventually(file.exists, "the file")
        for _ in range(2):
            os.utime(file, (0, 0))
            eventually(lambda: file.stat().st_mtime > 0, "a touch")
    finally:
        worker.kill()
        worker.wait(10)


def test_a_blocked_loop_fails_the_probe(committed, redis_broker, tmp_path):
    with processes.stack(tmp_path) as stack:
        relay = Watched(stack, "solo", tmp_path, include=TASKS)  # it runs its tasks in the main loop
        relay.process.wait_until_ready()
        assert relay.is_touched()

        redis_broker.send_task(f"{TASKS}.hang", queue="relay")
        eventually(lambda: not relay.is_touched(), "the loop is blocked")
        time.sleep(liveness.WAITS_SEEN_EVERY + 1)
        assert not relay.is_alive()
