"""beat: it can be stopped at any time, accumulates no ticks, and keeps ticking when its clock is set."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys

import pytest
from celery import current_app

from outbox.worker import beat
from tests.chaos.conftest import NO_RABBITMQ
from tests.processes import ROOT, RedisServer, environment, eventually
from tests.slow import but_first

pytestmark = [pytest.mark.processes, pytest.mark.django_db]

SKEW = str(ROOT / "orderflow" / "chaos" / "clock")


@pytest.fixture
def server(tmp_path):
    server = RedisServer(tmp_path, durable=False)
    yield server
    server.thaw()
    server.kill()


@pytest.mark.slow
@pytest.mark.parametrize("time", but_first(range(5), others="nightly"))
def test_beat_ends_on_request_while_it_waits_for_redis(short_lived, server, time):
    clock = short_lived.beat(BROKER_URL=server.url, REDIS_URL=server.url)
    with server.client() as link:
        eventually(lambda: link.llen("relay") > 0, "a tick")
    server.freeze()
    eventually(server.is_asked, "a tick that waits")
    clock.ask_to_stop()
    server.thaw()

    eventually(lambda: not clock.is_alive(), lambda: clock.output()[-3000:], within=beat.STOP_WITHIN + 10)
    assert clock.exit_code == 0


@pytest.mark.slow
def test_beat_ends_on_request_while_redis_never_responds(short_lived, server):
    clock = short_lived.beat(BROKER_URL=server.url, REDIS_URL=server.url)
    with server.client() as link:
        eventually(lambda: link.llen("relay") > 0, "a tick")
    server.freeze()
    eventually(server.is_asked, "a tick that waits")
    clock.ask_to_stop()

    eventually(lambda: not clock.is_alive(), lambda: clock.output()[-3000:], within=beat.STOP_WITHIN + 10)
    assert clock.exit_code == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "set_to",
    but_first([-86_400, -3600, 86_400], others="nightly"),
    ids=["a day back", "an hour back", "a day ahead"],
)
def test_beat_keeps_ticking_when_its_clock_is_set(short_lived, server, tmp_path, set_to):
    clock_file = tmp_path / "clock"
    clock_file.write_text("0")
    short_lived.beat(
        BROKER_URL=server.url,
        REDIS_URL=server.url,
        PYTHONPATH=os.pathsep.join([SKEW, str(ROOT)]),
        CLOCK_FILE=str(clock_file),
    )
    with server.client() as link:
        eventually(lambda: link.llen("relay") > 2, "ticks")
        clock_file.write_text(str(set_to))
        before = link.llen("relay")
        eventually(lambda: link.llen("relay") >= before + 6, "ticks after the clock was set", within=20)
        assert link.llen("relay") < before + 40
        assert link.llen("jobs") <= 3


TOLD_WHILE_IT_STARTS = """
import os, signal
import django; django.setup()
from orderflow.celery import app
from outbox.worker import beat

class Scheduler(beat.Scheduler):
    made = 0

    def __init__(self, *args, **options):
        Scheduler.made += 1
        print("making a scheduler")
        assert Scheduler.made == 1, "one is made while another is being made"
        os.kill(os.getpid(), signal.SIGTERM)
        super().__init__(*args, **options)

app.Beat(scheduler_cls=Scheduler, quiet=True).run()
"""


TOLD_WHILE_IT_TICKS = """
import os, signal, time
import django; django.setup()
from orderflow.celery import app
from outbox.worker import beat
beat.STOP_WITHIN = LIMIT

class Scheduler(beat.Scheduler):
    ticks = 0

    def apply_async(self, entry, producer=None, advance=True, **options):
        Scheduler.ticks += 1
        print("sending a tick", flush=True)
        assert Scheduler.ticks == 1, "beat goes on"
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        except SystemExit as ended:
            THEN

app.Beat(scheduler_cls=Scheduler, quiet=True).run()
"""


def run_beat(script):
    settings = {**environment(), "DJANGO_SETTINGS_MODULE": "orderflow.settings"}
    return subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=settings, capture_output=True, text=True, timeout=120
    )


@pytest.mark.slow
def test_beat_ends_on_request_while_it_builds_its_schedule():
    ended = run_beat(TOLD_WHILE_IT_STARTS)
    assert (ended.stdout, ended.returncode) == ("making a scheduler\n", 0), ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
def test_beat_ends_after_a_tick_in_which_a_library_made_another_error_of_its_end():
    as_redis_does = 'raise ValueError("unable to read") from ended'
    ended = run_beat(TOLD_WHILE_IT_TICKS.replace("LIMIT", "3600").replace("THEN", as_redis_does))
    assert (ended.stdout, ended.returncode) == ("sending a tick\n", 0), ended.stderr
    assert "unable to read" in ended.stderr


@pytest.mark.slow
def test_beat_that_waits_without_a_limit_ends_at_last():
    ended = run_beat(TOLD_WHILE_IT_TICKS.replace("LIMIT", "0.5").replace("THEN", "time.sleep(3600)"))
    assert (ended.stdout, ended.returncode) == ("sending a tick\n", 0), ended.stderr


SEND_MANY = """
import django; django.setup()
from orderflow.celery import app
from outbox.worker import beat
beat.COUNTED_EVERY = 0.0
scheduler = beat.Scheduler(app=app)
for _ in range(beat.MOST_WAITING + 20):
    scheduler.apply_entry(scheduler.schedule["drain the outbox"])
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["redis", "rabbitmq"])
def test_unprocessed_ticks_do_not_accumulate(request, kind):
    broker = request.getfixturevalue("redis_broker" if kind == "redis" else "amqp_broker")
    if broker is None:
        pytest.skip(NO_RABBITMQ)
    broker.purge()
    settings = {**environment(), "BROKER_URL": broker.url, "DJANGO_SETTINGS_MODULE": "orderflow.settings"}
    subprocess.run([sys.executable, "-c", SEND_MANY], cwd=ROOT, env=settings, timeout=120, check=True)
    assert broker.waiting("relay") == beat.MOST_WAITING
    broker.purge()


def test_intervals_use_the_monotonic_clock():
    scheduler = beat.Scheduler(app=current_app)
    assert {entry.schedule.nowfun for entry in scheduler.schedule.values()} == {beat.steady_now}
    assert abs(beat.steady_now() - dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=5)
