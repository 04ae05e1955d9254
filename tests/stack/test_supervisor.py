import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from orderflow.stack import ports
from orderflow.stack.checkout.folders import StackFolders
from orderflow.stack.checkout.state import Run
from orderflow.stack.problem import Problem
from orderflow.stack.screen import Screen
from orderflow.stack.supervision import children, probes, supervisor
from orderflow.stack.supervision.process_specs import Kind, ProcessSpec, StopRank
from orderflow.stack.supervision.supervisor import Interrupted, State, Supervisor
from outbox.worker import retirement
from tests.stack import wait_until

SERVE = "print('up', flush=True); import time; time.sleep(60)"


@pytest.fixture
def spec(tmp_path):
    """Make a process description from a line of Python; it is ready once it has printed `up`."""

    def make(name, code=SERVE, *, kind=Kind.SERVICE, **options):
        log = tmp_path / f"{name}.log"
        probe = probes.LogContains("up\n", log)

        def start():
            probe.skip_existing()
            return children.start([sys.executable, "-c", code], environment={}, log=log, cwd=tmp_path)

        options.setdefault("is_ready", probes.has_ended if kind is Kind.STEP else probe)
        return ProcessSpec(name=name, kind=kind, start=start, log=log, **options)

    return make


class States(list):
    """The reports of the supervisor, in order."""

    def __call__(self, watched):
        self.append((watched.spec.name, watched.state.value))


def run_until(running, condition, seconds=10.0):
    """Run the supervisor until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        running._tick(rest=0.01)


def pid(running, name):
    return running.watched[name].process.pid


def is_alive(process_id):
    return bool(children.command_line(process_id))


def test_a_process_starts_when_those_before_it_are_ready(spec):
    states = States()
    specs = [
        spec("web", after=("migrate",)),
        spec("migrate", "pass", kind=Kind.STEP, after=("database",)),
        spec("database", kind=Kind.SERVER),
        spec("flower", after=("web",), early=False),
    ]
    with Supervisor(specs, report=states) as running:
        running.start()
        assert [entry for entry in states if entry[1] != "starting"] == [
            ("database", "ready"), ("migrate", "done"), ("web", "ready"),
        ]  # fmt: skip
        run_until(running, lambda: running.watched["flower"].state is State.READY)


def test_a_killed_service_is_restarted_and_its_orphans_are_killed(spec):
    with_pool = f"import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', {SERVE!r}])"
    with Supervisor([spec("worker", f"{with_pool}; print(child.pid, flush=True); {SERVE}")]) as running:
        running.start()
        first = pid(running, "worker")
        orphan = int(running.watched["worker"].spec.log.read_text().split()[0])
        os.kill(first, signal.SIGKILL)
        run_until(running, lambda: pid(running, "worker") != first)
        run_until(running, lambda: running.watched["worker"].state is State.READY)
        wait_until(lambda: not is_alive(orphan))
    assert not is_alive(pid(running, "worker"))


def test_a_service_that_dies_repeatedly_is_given_up_and_the_others_continue(spec, monkeypatch):
    monkeypatch.setattr(supervisor, "RESTARTS", 2)
    broken = spec("flower", "import sys; sys.exit('no such page')", early=False, essential=False)
    specs = [spec("web"), broken, spec("jobs", after=("flower",), early=False)]
    with Supervisor(specs) as running:
        running.start()
        running.start_rest()
        assert running.watched["flower"].state is State.GIVEN_UP
        assert running.watched["web"].state is State.READY
        assert running.watched["jobs"].state is State.READY
        assert len(running.watched["flower"].deaths) == 3


def test_a_worker_that_asks_to_be_replaced_is_started_again_at_once_and_says_why(spec, tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor, "RETIRED_AFTER", 0.0)
    line = '{"event": "The worker ends with exit code 75, to be started again: 8 of its threads hang"}'
    hanging = f"import pathlib, sys\nprint('up')\nprint({line!r}, flush=True)\n"
    hanging += f"runs = pathlib.Path({str(tmp_path / 'runs')!r})\n"
    hanging += "runs.write_text(runs.read_text() + '.' if runs.exists() else '.')\n"
    hanging += "sys.exit(75) if len(runs.read_text()) < 5 else None\n" + SERVE
    printed = []
    screen = Screen(StackFolders(kept_in=tmp_path), Run(pid=0, what="", started_at=0.0))
    monkeypatch.setattr(screen, "print_line", printed.append)
    with Supervisor([spec("web"), spec("orders", hanging)], report=screen.on_change, restarts=1) as running:
        running.start()
        run_until(running, lambda: len((tmp_path / "runs").read_text()) == 5)
        run_until(running, lambda: running.watched["orders"].state is State.READY)
        assert len(running.watched["orders"].deaths) == 0
    assert len([text for text in printed if "orders is replaced, because 8 of its threads hang" in text]) == 4


def test_a_worker_that_asks_to_be_replaced_at_its_start_is_given_up(spec):
    always = spec("orders", "import sys; print('up', flush=True); sys.exit(75)", early=False, essential=False)
    with Supervisor([spec("web"), always], restarts=1) as running:
        running.start()
        running.start_rest()
        run_until(running, lambda: running.watched["orders"].state is State.GIVEN_UP)


def test_workers_end_with_the_exit_code_that_the_supervisor_knows():
    assert supervisor.RETIRED == retirement.RETIRED


def test_a_process_may_die_as_often_as_configured(spec):
    broken = spec("flower", "import sys; sys.exit('no such page')", early=False, essential=False)
    with Supervisor([spec("web"), broken], restarts=1) as running:
        running.start()
        running.start_rest()
        assert running.watched["flower"].state is State.GIVEN_UP
        assert len(running.watched["flower"].deaths) == 2


def test_the_death_of_a_server_stops_everything_and_shows_its_log(spec):
    def lose_the_database():
        with running:
            running.start()
            os.kill(pid(running, "database"), signal.SIGKILL)
            running.run_until_interrupted()

    broken = f"print('disk is broken', flush=True); {SERVE}"
    running = Supervisor([spec("database", broken, kind=Kind.SERVER), spec("web")])
    with pytest.raises(Problem, match=r"(?s)database was killed by signal 9.*disk is broken"):
        lose_the_database()
    assert not is_alive(pid(running, "web"))


@pytest.mark.parametrize("kind", [Kind.SERVICE, Kind.STEP, Kind.SERVER])
def test_a_process_that_does_not_come_up_fails_the_start_with_its_log(spec, kind):
    broken = spec("migrate", "import sys; sys.exit('no such table')", kind=kind)
    with (
        pytest.raises(Problem, match=r"(?s)migrate ended with exit code 1.*no such table"),
        Supervisor([broken]) as running,
    ):
        running.start()


def test_a_process_that_takes_too_long_is_named(spec, monkeypatch):
    monkeypatch.setattr(supervisor, "START_PATIENCE", 0.2)
    silent = spec("web", "import time; time.sleep(60)")
    with pytest.raises(Problem, match="web was not ready"), Supervisor([silent]) as running:
        running.start()
    assert not is_alive(pid(running, "web"))


SLOW_PAGE = """
import http.server, time
class Slow(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        time.sleep(1.5)
        self.send_response(200); self.end_headers()
http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Slow).serve_forever()
"""


@pytest.mark.slow
def test_a_slow_page_is_waited_for_and_not_restarted(spec, monkeypatch):
    """The response takes longer than the probe's interval, and the process would be slower each time."""
    monkeypatch.setattr(supervisor, "START_PATIENCE", 15.0)
    port = ports.choose()
    page = probes.answers(f"http://127.0.0.1:{port}/livez")
    states = States()
    web = spec("web", SLOW_PAGE.replace("PORT", str(port)), is_ready=page)
    with Supervisor([web], report=states) as running:
        running.start()
        os.kill(pid(running, "web"), signal.SIGKILL)
        run_until(running, lambda: running.watched["web"].state is State.RESTARTING)
        run_until(running, lambda: running.watched["web"].state is State.READY)
    states = [state for _, state in states]
    assert states == ["starting", "ready", "restarting", "starting", "ready", "stopped"]


def test_probing_a_slow_page_delays_no_other_process(spec):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        page = probes.answers(f"http://127.0.0.1:{silent.getsockname()[1]}/livez")
        began = time.monotonic()
        assert [page(None) for _ in range(20)] == [False] * 20
        assert time.monotonic() - began < 1


def test_the_database_is_stopped_last_and_processes_that_ignore_signals_are_killed(spec, monkeypatch):
    monkeypatch.setitem(supervisor.STOP_PATIENCE, StopRank.APPLICATION, 0.2)
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    states = States()
    specs = [
        spec("database", kind=Kind.SERVER, stop_rank=StopRank.DATABASE, stop_by=signal.SIGINT),
        spec("broker", kind=Kind.SERVER, stop_rank=StopRank.BROKER),
        spec("sandbox", stop_rank=StopRank.SANDBOX),
        spec("worker", f"{stubborn}; {SERVE}"),
    ]
    with Supervisor(specs, report=states) as running:
        running.start()
    stopped = [name for name, state in states if state == "stopped"]
    assert stopped == ["worker", "sandbox", "broker", "database"]
    assert running.watched["worker"].process.returncode == -signal.SIGKILL


def test_a_foreground_command_decides_the_exit_code_and_can_be_interrupted(spec, tmp_path):
    with Supervisor([spec("web")]) as running:
        running.start()
        options = {"environment": {}, "cwd": tmp_path}
        assert running.run_foreground([sys.executable, "-c", "exit(7)"], **options, owns_interrupt=True) == 7
        interrupt = f"import os, signal, time; os.kill({os.getpid()}, signal.SIGINT); time.sleep(0.1); exit(8)"
        assert running.run_foreground([sys.executable, "-c", interrupt], **options, owns_interrupt=True) == 8
        with pytest.raises(Interrupted):
            running.run_foreground([sys.executable, "-c", interrupt], **options, owns_interrupt=False)


@pytest.mark.skipif(
    sys.platform != "linux",
    reason="only Linux ends a child with its parent; elsewhere the next start cleans up",
)
def test_nothing_outlives_a_killed_supervisor(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from orderflow.stack.supervision import children\n"
        f"child = children.start([sys.executable, '-c', {SERVE!r}], environment={{}}, log=None, "
        "cwd=Path('.'))\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as started:
        child = int(started.stdout.readline())
        assert is_alive(child)
        started.kill()
    wait_until(lambda: not is_alive(child), seconds=3)
