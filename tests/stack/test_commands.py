"""The commands of run.py, on a checkout whose own processes are stand-ins; the servers are real."""

import dataclasses
import json
import os
import re
import shutil
import signal
import smtplib
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from orderflow import providers, push_account
from orderflow.configuration import email_url, tls
from orderflow.sandbox.launch import Sandbox
from orderflow.stack import ports
from orderflow.stack.checkout import environment as stack_environment
from orderflow.stack.checkout import folders, schema, state
from orderflow.stack.processes import Table
from orderflow.stack.supervision import children
from tests.stack import wait_until
from tests.stack.conftest import PASSWORDS

# Responds to every request with its environment; as a worker, beat or Flower it prints what Celery prints.
STAND_IN = """
import http.server, json, os, re, sys

port = re.search(r"--port[ =](\\d+)|--bind=[^ ]*:(\\d+)", " ".join(sys.argv))
print("beat: Starting", "stand-in ready.", flush=True)

class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(dict(os.environ)).encode())

    def log_message(self, *_):
        pass

http.server.HTTPServer(("127.0.0.1", int(port[1] or port[2]) if port else 0), Page).serve_forever()
"""
MANAGE = """
import os, sys
word = sys.argv[1]
if word == "migrate" and os.path.exists("broken"):
    sys.exit("no such table")
if word == "demo":
    print("demo", *sys.argv[2:], flush=True)
    sys.exit(int(open("demo-exit").read()))
if word == "sql":
    import psycopg
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        done = connection.execute(sys.argv[2])
        print(done.fetchone()[0] if done.description else "", os.getcwd(), end="")
if word == "metrics":
    import time
    print("Serving metrics", flush=True)
    time.sleep(3600)
if word == "fail":
    sys.exit(4)
"""


@pytest.fixture
def checkout(folder, cluster):
    """A checkout with the real stack, stand-ins for everything it starts, and an empty database."""
    (folder / "orderflow").mkdir()
    (folder / "orderflow" / "__init__.py").touch()
    shutil.copytree(folders.ROOT / "orderflow" / "stack", folder / "orderflow" / "stack")
    for module in (providers, push_account):
        shutil.copy(module.__file__, folder / "orderflow")
    shutil.copytree(Path(tls.__file__).parent, folder / "orderflow" / "configuration")
    (folder / "orderflow" / "sandbox.py").write_text(STAND_IN)
    for module in ("outbox", "gunicorn"):
        (folder / f"{module}.py").write_text(STAND_IN)
    (folder / "manage.py").write_text(MANAGE)
    (folder / "demo-exit").write_text("0")
    (folder / ".orderflow" / "servers").mkdir(parents=True)
    (folder / ".orderflow" / "secrets.json").write_text(json.dumps(PASSWORDS))
    subprocess.run(["cp", "-a", cluster.path / "postgres", folder / ".orderflow" / "servers"], check=True)
    yield folder
    run(folder, "down")


def environment(**extra):
    ours = ("DATABASE_URL", "BROKER_URL", "REDIS_URL", "ORDERFLOW_", "PYTEST", "COVERAGE")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | extra


def run(checkout, *words, **extra):
    command = [sys.executable, "-m", "orderflow.stack", *words]
    return subprocess.run(
        command, cwd=checkout, env=environment(**extra), capture_output=True, text=True, timeout=60, check=False
    )


def start(checkout, *words, **extra):
    command = [sys.executable, "-m", "orderflow.stack", *words]
    process = subprocess.Popen(
        command,
        cwd=checkout,
        env=environment(**extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    wait_until(lambda: (read(checkout) or {}).get("ready"), process)
    return process


def read(checkout):
    try:
        return json.loads((checkout / ".orderflow" / "run.json").read_text())
    except FileNotFoundError:
        return None


def fetch(url):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=5) as answer:
        return json.load(answer)


@pytest.mark.slow
def test_a_stack_starts_restarts_a_worker_keeps_its_data_and_stops(checkout):
    web = ports.choose()
    stack = start(checkout, "up", "--port", str(web), HTTP_PROXY="http://127.0.0.1:1", PGSSLMODE="require")
    seen = fetch(f"http://127.0.0.1:{web}/")
    assert run(checkout, "sql", "CREATE TABLE kept AS SELECT 1042 AS number").returncode == 0

    again = run(checkout, "up")
    assert again.returncode == 3
    assert again.stderr == (
        f"OrderFlow is already running here at http://127.0.0.1:{web} (process {stack.pid}). "
        "Stop it with: python3 run.py down\n"
    )
    assert run(checkout, "reset").returncode == 3
    elsewhere = run(checkout, "sql", "SELECT 1", DATABASE_URL="postgresql://me@127.0.0.1:1/other")
    assert elsewhere.returncode == 1
    assert elsewhere.stderr.startswith("DATABASE_URL in your environment differs from what the running stack")
    assert run(checkout, "down", "--help").stdout.startswith("python3 run.py")
    assert run(checkout, "down", "--now").returncode == 2
    assert run(checkout, "fail").returncode == 4

    wait_until(lambda: read(checkout)["processes"].get("metrics", {}).get("state") == "ready", stack)
    status = run(checkout, "status")
    assert status.returncode == 0
    names = {line.split()[0] for line in status.stdout.splitlines()[1:]}
    assert names >= {
        "postgres",
        "valkey",
        "web",
        "orders",
        "relay",
        "beat",
        "email",
        "sms",
        "push",
        "jobs",
        "flower",
        "metrics",
    }
    processes = {name: spec["pid"] for name, spec in read(checkout)["processes"].items() if spec["pid"]}
    for process_id in processes.values():
        assert seen["FLOWER_BASIC_AUTH"].split(":")[1] not in children.command_line(process_id)

    os.kill(processes["orders"], signal.SIGKILL)
    wait_until(lambda: read(checkout)["processes"]["orders"]["pid"] not in (None, processes["orders"]), stack)

    begun = time.monotonic()
    assert run(checkout, "down").stdout.startswith("Stopped in ")
    assert stack.wait(5) == 0
    assert time.monotonic() - begun < 5
    assert f"! orders died (see {checkout}/.orderflow/log/orders.log)" in stack.stdout.read()
    assert not [process_id for process_id in processes.values() if children.command_line(process_id)]
    assert run(checkout, "status").returncode == 1

    # With nothing running, a command starts the servers for itself: the data is still there.
    folder = str(checkout.parent)
    assert (
        run(checkout, "sql", "SELECT number FROM kept", ORDERFLOW_CALLED_FROM=folder).stdout == f"1042 {folder}"
    )
    for secret in ("secrets.json", "fcm.json"):
        assert (checkout / ".orderflow" / secret).stat().st_mode & 0o777 == 0o600

    assert run(checkout, "reset", "--help").stdout.startswith("python3 run.py")
    assert run(checkout, "sql", "SELECT number FROM kept").returncode == 0
    assert run(checkout, "reset").returncode == 0
    assert "kept" in run(checkout, "sql", "SELECT number FROM kept").stderr


@pytest.mark.slow
def test_once_exits_with_the_exit_code_of_the_demo(checkout):
    (checkout / "demo-exit").write_text("5")
    once = run(checkout, "--once", "--orders", "7")
    assert once.returncode == 5
    assert "demo --skip-checks --orders 7\n" in once.stdout
    assert re.search(r"Stopped in \d\.\d s", once.stdout)
    assert re.search(r"READY for orders in \d+\.\d s", once.stdout)
    assert run(checkout, "status").returncode == 1


@pytest.mark.slow
def test_ctrl_c_stops_everything_and_the_death_of_the_database_is_reported(checkout):
    stack = start(checkout)
    processes = read(checkout)["processes"]
    os.kill(stack.pid, signal.SIGINT)
    assert stack.wait(5) == 0
    assert not children.command_line(processes["postgres"]["pid"])

    stack = start(checkout, "up")
    os.kill(read(checkout)["processes"]["postgres"]["pid"], signal.SIGKILL)
    assert stack.wait(5) == 1
    output = stack.stdout.read()
    assert "postgres was killed by signal 9 while everything else was running." in output
    assert "database system is ready to accept connections" in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_problems_are_reported_in_a_sentence(checkout):
    def complaint(*words, **extra):
        done = run(checkout, *words, **extra)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        return done.stderr

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"Port {port} is taken. Name another with --port" in complaint("up", "--port", port)
    free = ports.choose()
    assert f"BROKER_URL does not work. Tried: 127.0.0.1:{free}" in complaint(
        "up", BROKER_URL=f"amqp://127.0.0.1:{free}"
    )
    assert "begins with sqs://" in complaint("up", BROKER_URL="sqs://somewhere")
    unusable = complaint("up", DATABASE_URL=f"postgresql://me:hidden@127.0.0.1:{free}/shop")
    assert "DATABASE_URL does not work" in unusable
    assert "hidden" not in unusable

    (checkout / "broken").touch()
    assert re.search(r"(?s)migrate ended with exit code 1.*no such table", complaint("up"))

    shutil.rmtree(checkout / ".orderflow")
    (checkout / ".orderflow").touch()
    assert "is not writable" in complaint("up")


@pytest.mark.slow
def test_servers_of_the_user_are_used_and_not_replaced(checkout, postgres, valkey, run_server):
    run_server(postgres)
    run_server(valkey)
    given = {"DATABASE_URL": postgres.url, "BROKER_URL": valkey.url(5)}
    web = ports.choose()
    stack = start(checkout, "up", "--port", str(web), **given)
    seen = fetch(f"http://127.0.0.1:{web}/")
    assert {name: seen[name] for name in ("DATABASE_URL", "BROKER_URL", "REDIS_URL")} == {
        **given,
        "REDIS_URL": given["BROKER_URL"],
    }
    assert "postgres" not in read(checkout)["processes"]
    assert run(checkout, "down").returncode == 0
    assert stack.wait(5) == 0


def test_migrations_run_before_the_first_order_unless_they_are_known_to_be_current(folder):
    stack_folders = folders.StackFolders(folder)
    stack_folders.servers.mkdir(parents=True)
    migrations = folder / "orders" / "migrations"
    migrations.mkdir(parents=True)
    (migrations / "0001_initial.py").touch()
    assert not schema.is_current(stack_folders)
    schema.remember(stack_folders)
    assert schema.is_current(stack_folders)

    (migrations / "0002_refunds.py").touch()
    assert not schema.is_current(stack_folders)
    schema.remember(stack_folders)
    schema.forget(stack_folders)
    assert not schema.is_current(stack_folders)

    def order(*, migrated):
        port = dict.fromkeys(("web", "flower", "metrics", *stack_environment.SANDBOX), 1)
        specs = Table(
            folders=stack_folders, environment={}, port=port, servers=("postgres",), migrated=migrated
        ).specs()
        return {spec.name: spec for spec in specs}

    assert "migrate" in order(migrated=False)["orders"].after
    assert "migrate" not in order(migrated=True)["orders"].after
    assert not order(migrated=True)["migrate"].early
    assert "migrate" in order(migrated=True)["admin"].after


def test_the_mail_server_accepts_mail_only_with_the_stacks_own_credentials(folder):
    stack_folders = folders.StackFolders(folder)
    stack_folders.prepare()
    port = {name: ports.choose() for name in ("web", "flower", "metrics", *stack_environment.SANDBOX)}
    managed = stack_environment.managed(
        folders=stack_folders, secret=stack_environment.make_secrets(), port=port, servers={}
    )
    stack_environment.write_sandbox_password(stack_folders, managed["SANDBOX_PASSWORD"])
    given = email_url.parse(managed["EMAIL_URL"])
    with Sandbox("smtp", stack_folders.sandbox, port=port["smtp-control"], smtp_port=port["smtp"]):
        address = given["EMAIL_HOST"], given["EMAIL_PORT"]
        with smtplib.SMTP(*address, local_hostname="tests", timeout=10) as client:
            client.ehlo()
            assert client.mail("shop@example.com")[0] == 530
            client.login(given["EMAIL_HOST_USER"], given["EMAIL_HOST_PASSWORD"])
            assert client.mail("shop@example.com")[0] == 250


def test_processes_left_by_a_killed_supervisor_are_ended_but_no_others(folder):
    stack_folders = folders.StackFolders(folder)
    stack_folders.prepare()
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    left, stranger = (children.start(sleep, environment={}, log=None, cwd=folder) for _ in range(2))
    wait_until(lambda: children.command_line(left.pid) == children.command_line(stranger.pid) != "")
    entry = {"pid": left.pid, "command": children.command_line(left.pid), "state": "ready", "deaths": 0}
    specs = {"valkey": entry, "orders": {**entry, "pid": stranger.pid, "command": "celery"}}
    state.write(stack_folders, state.Run(pid=1, what=state.STACK, started_at=0.0, processes=specs))

    with state.hold(stack_folders, state.STACK):
        assert left.wait(5) == -signal.SIGKILL
        assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


def test_a_run_file_of_an_older_version_is_still_read(folder):
    stack_folders = folders.StackFolders(folder)
    stack_folders.prepare()
    run = state.Run(pid=1, what=state.STACK, started_at=0.0, processes={"web": {"state": "ready", "pid": 2}})
    written = dataclasses.asdict(run)
    written["units"] = written.pop("processes")

    stack_folders.run.write_text(json.dumps(written))

    assert state.read(stack_folders) == run
