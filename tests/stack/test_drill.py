"""The drill's own stack, on a checkout whose processes are stand-ins; servers and proxy are real."""

import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from orderflow import chaos, providers, push_account
from orderflow.configuration import tls
from orderflow.stack import processes
from orderflow.stack.checkout import environment as stack_environment
from orderflow.stack.checkout import folders
from orderflow.stack.checkout.account import Account
from orderflow.stack.checkout.folders import StackFolders
from orderflow.stack.commands import fault_stack
from orderflow.stack.problem import Problem
from orderflow.stack.processes import Table
from orderflow.stack.servers import rabbitmq, throwaway
from tests.stack.test_commands import STAND_IN, environment

# As the command of a drill it kills the database, and checks that its address works again through the proxy.
MANAGE = """
import json, os, signal, sys, time
if sys.argv[1] == "chaos":
    import psycopg
    from orderflow.chaos.faults import proxy
    state = sys.argv[sys.argv.index("--home") + 1]
    read = lambda name: json.load(open(os.path.join(state, name)))
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1042 AS number")
    killed = read("run.json")["processes"]["postgres"]["pid"]
    os.kill(killed, signal.SIGKILL)
    while read("run.json")["processes"]["postgres"]["pid"] in (None, killed) or \\
            read("run.json")["processes"]["postgres"]["state"] != "ready":
        time.sleep(0.05)
    direct = os.environ["DATABASE_URL"]
    port = read("ports.json")
    with psycopg.connect(direct.replace(str(port["postgres"]), str(port["database"]))) as connection:
        print("kept", *connection.execute("SELECT number FROM kept").fetchone(), flush=True)
    print("routes", *proxy.set_routes(port["proxy-control"]), flush=True)
    print("processes", *read("run.json")["processes"], flush=True)
    print("state", state, flush=True)
    sys.exit(1)
"""


@pytest.fixture
def checkout(folder):
    (folder / "orderflow").mkdir()
    (folder / "orderflow" / "__init__.py").touch()
    shutil.copytree(folders.ROOT / "orderflow" / "stack", folder / "orderflow" / "stack")
    for module in (providers, push_account):
        shutil.copy(module.__file__, folder / "orderflow")
    shutil.copytree(Path(tls.__file__).parent, folder / "orderflow" / "configuration")
    shutil.copytree(Path(chaos.__file__).parent, folder / "orderflow" / "chaos")
    (folder / "orderflow" / "sandbox.py").write_text(STAND_IN)
    for module in ("outbox", "gunicorn"):
        (folder / f"{module}.py").write_text(STAND_IN)
    (folder / "manage.py").write_text(MANAGE)
    return folder


@pytest.mark.slow
def test_a_drill_has_its_own_stack_that_recovers_and_is_removed_at_the_end(checkout):
    done = subprocess.run(
        [sys.executable, "-m", "orderflow.stack", "chaos", "--report", str(checkout / "report")],
        cwd=checkout,
        env=environment(DATABASE_URL="postgresql://somebody@example.com/else"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    output = {line.partition(" ")[0]: line.split()[1:] for line in done.stdout.splitlines()}
    assert output["kept"] == ["1042"], done.stdout + done.stderr
    assert output["routes"] == ["database", "broker", "shared"]
    assert {"postgres", "valkey", "proxy", "orders", "orders-2", "relay", "beat", "web"} <= set(
        output["processes"]
    )
    assert not {"flower", "jobs", "metrics"} & set(output["processes"])
    assert not Path(" ".join(output["state"])).exists(), "the throwaway folder is removed"
    assert "database system was not properly shut down" in (checkout / "report/log/postgres.log").read_text()


def test_the_state_of_a_stack_can_be_in_another_folder(folder):
    stack_folders = StackFolders(root=folder / "checkout", kept_in=folder / "drill")
    stack_folders.prepare()
    assert stack_folders.run == folder / "drill" / "run.json"
    assert stack_folders.logs.is_dir()
    assert not (folder / "checkout").exists()


def test_several_orders_workers_share_the_queue_and_its_unacknowledged_messages(folder, monkeypatch):
    started, ports = {}, []

    def start(command, *, environment, **_):
        ports.append(environment.pop("METRICS_PORT"))
        started[command[command.index("-n") + 1]] = (command[command.index("-Q") + 1], environment)

    monkeypatch.setattr("orderflow.stack.supervision.children.start", start)
    port = dict.fromkeys(("web", "flower", "metrics", *stack_environment.SANDBOX), 1)
    table = Table(folders=StackFolders(folder), environment={}, port=port, orders_workers=2)
    for spec in table.specs():
        if spec.name in ("orders", "orders-2"):
            spec.log.parent.mkdir(parents=True, exist_ok=True)
            spec.start()
    assert started == {
        "orders@%h": ("orders", {"ORDERFLOW_POOL": "orders"}),
        "orders-2@%h": ("orders", {"ORDERFLOW_POOL": "orders"}),
    }
    assert len(set(ports)) == 2


def test_missing_rabbitmq_is_reported_with_how_to_install_it(monkeypatch):
    monkeypatch.setattr(rabbitmq, "SCRIPTS", ())
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Problem, match=r"RabbitMQ is not installed here.*or use --broker redis"):
        rabbitmq.program()


def test_only_the_port_of_an_address_is_changed():
    url = "redis://:secret@127.0.0.1:6379/1"
    assert fault_stack.by(url, 7000) == "redis://:secret@127.0.0.1:7000/1"


def test_cluster_nodes_start_in_turn_and_the_broker_url_names_all_of_them(folder, monkeypatch):
    monkeypatch.setattr(rabbitmq, "program", lambda: rabbitmq.Program(folder / "server", folder / "epmd"))
    port = {name: 7000 + number for number, name in enumerate(throwaway.ports(3))}
    stack_folders = folders.ServersFolder(path=folder, account=Account())
    chosen = throwaway.choose(
        "rabbitmq", place=stack_folders, logs=folder, port=port, secret=defaultdict(lambda: "secret"), nodes=3
    )
    after = {spec.name: spec.after for spec in chosen.specs if spec.name.startswith("rabbitmq")}
    assert after["rabbitmq"] == ("rabbitmq-names",)
    assert after["rabbitmq-2"][-1] == "rabbitmq"
    assert after["rabbitmq-3"][-1] == "rabbitmq-2"
    urls = [urlsplit(url) for url in chosen.addresses["BROKER_URL"].split(";")]
    assert [url.port for url in urls] == [port["rabbitmq"], port["rabbitmq-2"], port["rabbitmq-3"]]


def test_a_process_that_is_held_starts_when_it_is_released(folder):
    held = folder / "orders"
    held.touch()
    command = ["/bin/sh", "-c", processes.WAIT_WHILE_HELD, str(held), sys.executable, "-c", "print('started')"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        held.unlink()
        assert process.communicate(timeout=20)[0] == "started\n"
