import dataclasses
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from orderflow.stack.checkout import folders
from orderflow.stack.problem import Problem
from orderflow.stack.servers.valkey import Valkey
from orderflow.stack.supervision import children
from tests.stack import wait_until


def answers(postgres, query):
    with psycopg.connect(postgres.url) as connection:
        return connection.execute(query).fetchone()[0]


def send_commands(valkey, *commands):
    return valkey._send_commands(f"AUTH {valkey.password}", *commands)


def test_rows_survive_a_stop_and_a_kill_of_the_database(postgres, run_server):
    first = run_server(postgres)
    client = psycopg.connect(postgres.url, autocommit=True)
    client.execute("CREATE TABLE orders AS SELECT generate_series(1, 100) AS id")
    first.send_signal(postgres.spec().stop_by)
    assert first.wait(5) == 0, "it waited for the client that is still connected"
    client.close()

    second = run_server(postgres)
    assert answers(postgres, "SELECT count(*) FROM orders") == 100
    second.kill()
    second.wait()

    third = run_server(postgres)
    assert answers(postgres, "SELECT count(*) FROM orders") == 100
    assert third.poll() is None


def test_the_project_owns_its_database_and_is_not_a_superuser(postgres, run_server):
    run_server(postgres)
    assert (
        answers(postgres, "SELECT rolsuper::text || rolcreatedb FROM pg_roles WHERE rolname = current_user")
        == "falsetrue"
    )
    assert (
        answers(postgres, "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()")
        == "orderflow"
    )
    assert answers(postgres, "SHOW listen_addresses") == "127.0.0.1"
    assert answers(postgres, "SELECT upper('é') || (now()::text LIKE '%+00')::text") == "Étrue"
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        psycopg.connect(postgres.url.replace("secret", "guessed"))


@pytest.mark.slow
def test_leftovers_of_killed_starts_do_not_prevent_a_start(new_postgres, run_server):
    postgres = new_postgres
    half = postgres.data.with_name("postgres.init")
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")
    run_server(postgres).kill()

    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as stranger:
        # After a container restart, the process id in the file may belong to any process.
        pid_file = postgres.data / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
        pid_file.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
        run_server(postgres)
        assert stranger.poll() is None
        stranger.kill()


def test_a_server_that_outlived_its_supervisor_is_stopped(postgres, run_server):
    orphan = run_server(postgres)
    successor = run_server(postgres)
    assert orphan.poll() == 0
    assert successor.poll() is None


def test_data_of_another_major_version_is_refused_with_advice(new_postgres):
    new_postgres.data.mkdir()
    (new_postgres.data / "PG_VERSION").write_text("13\n")
    with pytest.raises(Problem, match=r"of PostgreSQL 13, the server here is PostgreSQL .* run.py reset"):
        new_postgres.start()


def test_lost_passwords_are_reported_without_a_timeout(postgres, run_server):
    with pytest.raises(Problem, match=r"secrets\.json"):
        run_server(dataclasses.replace(postgres, superuser_password="another"))


def test_messages_survive_a_stop_and_a_kill_of_the_broker(valkey, run_server):
    first = run_server(valkey)
    send_commands(valkey, "SET order 1042")
    first.send_signal(valkey.spec().stop_by)
    assert first.wait(5) == 0

    second = run_server(valkey)
    send_commands(valkey, "SET mail 7")
    time.sleep(1.1)  # it writes to disk once a second
    second.kill()
    second.wait()

    run_server(valkey)
    assert "1042" in send_commands(valkey, "GET order")
    assert "7" in send_commands(valkey, "GET mail")
    assert "noeviction" in send_commands(valkey, "CONFIG GET maxmemory-policy")
    assert "NOAUTH" in valkey._send_commands("GET order")


@pytest.mark.slow
def test_a_broker_that_loads_its_data_is_not_ready(valkey, run_server, monkeypatch):
    first = run_server(valkey)
    send_commands(valkey, *(f"SET order-{number} {'x' * 40}" for number in range(4000)))
    first.send_signal(valkey.spec().stop_by)
    assert first.wait(5) == 0
    slowly = valkey._settings() + "key-load-delay 1000\nloading-process-events-interval-bytes 1024\n"
    monkeypatch.setattr(Valkey, "_settings", lambda self: slowly)

    reading, seen = valkey.start(), []
    try:
        wait_until(lambda: "loading:1" in persistence_state(valkey), reading)
        wait_until(lambda: seen.append(valkey.is_ready(reading)) or seen[-1], reading)
        assert "loading:0" in persistence_state(valkey), "it was ready before it had loaded everything"
        assert seen[0] is False
        assert "x" * 40 in send_commands(valkey, "GET order-3999")
    finally:
        children.end_group(reading.pid)
        reading.wait()


def persistence_state(valkey):
    try:
        return send_commands(valkey, "INFO persistence")
    except OSError:
        return ""


def test_no_password_is_visible_to_other_accounts(valkey, postgres, run_server, stack_folders):
    for server in (valkey, postgres):
        process = run_server(server)
        assert server.password not in children.command_line(process.pid)
        assert Path(f"/proc/{process.pid}/environ").stat().st_mode & 0o077 == 0


def test_another_server_on_our_port_is_recognised(valkey, run_server, stack_folders):
    other = dataclasses.replace(valkey, folder=dataclasses.replace(valkey.folder, path=stack_folders.sandbox))
    process = run_server(valkey)
    with pytest.raises(Problem, match="Another server answers"):
        other.is_ready(process)


def test_a_checkout_that_the_account_cannot_enter_stays_closed(folder, monkeypatch, run_server, valkey):
    if valkey.folder.account.user_id is None:
        pytest.skip("only root runs the servers as another account")
    closed = folder / "closed"
    elsewhere = folder / "var"
    elsewhere.mkdir()
    closed.mkdir(mode=0o700)
    monkeypatch.setattr(folders, "ELSEWHERE", elsewhere)
    program, hidden = valkey.program, closed / "site"
    for tree in program.trees:
        shutil.copytree(tree, hidden / tree.relative_to(program.base))
    program = dataclasses.replace(
        program,
        base=hidden,
        path=hidden / program.path.relative_to(program.base),
        trees=tuple(hidden / tree.relative_to(program.base) for tree in program.trees),
    )
    stack_folders = folders.StackFolders(closed)
    stack_folders.prepare()

    place = folders.servers_folder(stack_folders, {})
    run_server(dataclasses.replace(valkey, folder=place, program=program.for_account(place)))

    assert stack_folders.servers.is_symlink()
    assert place.path.parent == elsewhere
    assert closed.stat().st_mode & 0o777 == 0o700
    assert folders.servers_folder(stack_folders, {}) == place
