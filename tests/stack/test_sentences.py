"""Problems are reported in sentences: which setting, what was tried, what to do."""

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from django.db import OperationalError

import manage as program
from orderflow.stack import cli, ports
from orderflow.stack.checkout import environment, folders
from orderflow.stack.servers import given
from tests.slow import but_first
from tests.stack.test_commands import checkout, run  # noqa: F401 - a fixture

COMMANDS = {file.stem for file in folders.ROOT.glob("*/management/commands/[a-z]*.py")}


def manage(*words, **settings):
    return subprocess.run(
        [sys.executable, "manage.py", *words],
        cwd=folders.ROOT,
        env={"PATH": os.environ["PATH"], **settings},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.fixture
def deaf():
    """The port of a server that accepts connections and sends nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.slow
def test_servers_that_do_not_answer_are_named_within_five_seconds(deaf):
    urls = {
        "DATABASE_URL": f"postgresql://me:hidden@localhost:{deaf}/shop",
        "BROKER_URL": f"amqp://me:hidden@localhost:{deaf}//",
        "REDIS_URL": f"redis://:hidden@localhost:{deaf}/1",
    }
    begun = time.monotonic()
    message = given.complaints_about(urls)

    assert time.monotonic() - begun < 4.5
    assert [line.split()[0] for line in message] == list(urls)
    assert all(f"Tried: localhost:{deaf}" in complaint for complaint in message)
    assert not any("hidden" in complaint for complaint in message)


def test_a_failed_command_tries_silent_servers_once_more_and_briefly(deaf, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", f"postgresql://me:hidden@localhost:{deaf}/shop")
    monkeypatch.setenv("BROKER_URL", f"redis://:hidden@localhost:{deaf}/0")
    monkeypatch.delenv("REDIS_URL", raising=False)
    complaints = program.unusable_servers(OperationalError("timeout expired"))

    assert [line.split()[0] for line in complaints] == ["DATABASE_URL", "BROKER_URL"]
    # Two seconds passed before, and one for the start.
    assert all("Answer: none within 1.5 s" in line for line in complaints)


def test_the_complete_message_of_libpq_is_shown(postgres, run_server):
    run_server(postgres)
    free = ports.choose()

    nobody = given.complaint("DATABASE_URL", f"postgresql://me:t@127.0.0.1:{free}/accept")
    assert "connection refused\n\tis the server running on that host and accepting" in nobody.lower()
    wrong = given.complaint("DATABASE_URL", postgres.url.replace(postgres.password, "hidden"))
    assert 'password authentication failed for user "orderflow"' in wrong
    assert wrong.endswith("Correct its user and password.")
    missing = given.complaint("DATABASE_URL", postgres.url.rpartition("/")[0] + "/nowhere")
    assert 'database "nowhere" does not exist' in missing
    assert given.complaint("DATABASE_URL", postgres.url) == ""


def test_the_refusal_of_a_broker_is_shown(valkey, run_server):
    run_server(valkey)

    assert given.complaint("BROKER_URL", valkey.url(0)) == ""
    wrong = given.complaint("BROKER_URL", valkey.url(0).replace(valkey.password, "hidden"))
    assert "invalid username-password pair" in wrong
    assert wrong.endswith("Correct its user and password.")
    assert "DB index is out of range" in given.complaint("REDIS_URL", valkey.url(9_999))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("connecting to postgresql://me:t@host/accept", "connecting to postgresql://me:***@host/accept"),
        ("accepting connections at the port", "accepting connections at the port"),
        ("the user t and the database t", "the user t and the database t"),
        ("dsn user=me password=t host=t", "dsn user=me password=*** host=t"),
    ],
)
def test_a_password_is_masked_only_where_it_is_used_as_a_password(text, shown):
    assert given.masked(text, "postgresql://me:t@t/t") == shown


@pytest.mark.parametrize(
    ("name", "url", "reason"),
    [
        ("DATABASE_URL", "mysql://me:hidden@host/shop", "it begins with mysql://"),
        ("DATABASE_URL", "hidden", "it has no scheme"),
        ("DATABASE_URL", "postgresql://me:hid@den@host/shop", "write @"),
        ("DATABASE_URL", "postgresql://me:hid den@host/shop", "write @"),
        ("DATABASE_URL", "postgresql://me:hid%zz@host/shop", "write @"),
        ("DATABASE_URL", "postgresql://me:hidden@host:many/shop", "its port is not a number"),
        ("DATABASE_URL", "postgresql://me:hidden@[host/shop", "its host cannot be read"),
        ("DATABASE_URL", "postgresql://me:hid%00den@host/shop", "write @"),
        ("DATABASE_URL", "postgresql://me:hid#den@host/shop", "write / # ? as %2F %23 %3F"),
        ("DATABASE_URL", "POSTGRESQL://me:hidden@host/shop", "in small letters"),
        ("DATABASE_URL", "postgresql:/me:hidden@host/shop", "with both slashes"),
        ("DATABASE_URL", "'postgresql://me:hidden@host/shop'", "spaces or quotes around it"),
        ("DATABASE_URL", "postgresql://me:hidden@host/shop\n", "spaces or quotes around it"),
        ("DATABASE_URL", "postgresql://me:hidden@host", "it names no database"),
        ("BROKER_URL", "redis://:hidden@host/shop", "databases there are numbers from 0, and shop is none"),
        ("BROKER_URL", "redis://:hidden@host/-1", "-1 is none"),
        ("BROKER_URL", "rediss://:hidden@host/²", "² is none"),
        ("REDIS_URL", "redis://:hidden@host/0/1", "0/1 is none"),
        ("BROKER_URL", "sqs://me:hidden@queue", "it begins with sqs://"),
        ("REDIS_URL", "amqp://me:hidden@host", "it begins with amqp://"),
    ],
)
def test_a_malformed_url_is_reported_without_its_password(name, url, reason):
    message = given.complaint(name, url)

    assert message.startswith(f"{name} is not an address that can be used: ")
    assert reason in message
    assert not [part for part in ("hidden", "den@", "hid%", "hid d") if part in message]


@pytest.mark.parametrize(
    ("name", "url", "advice"),
    [
        ("DATABASE_URL", "postgresql://me@127.0.0.1:{port}/shop?sslmode=often", "question mark"),
        ("DATABASE_URL", "postgresql://me@127.0.0.1:{port}/shop?sslmod=require", "question mark"),
        ("BROKER_URL", "redis://127.0.0.1:{port}/0?socket_timeout=long", "question mark"),
        ("BROKER_URL", "redis://127.0.0.1:{port}/0?bogus=1", "question mark"),
        ("DATABASE_URL", "postgresql://me@" + "h" * 70 + "/shop", "Correct the name of the host"),
    ],
)
def test_the_advice_matches_the_problem(name, url, advice):
    assert advice in given.complaint(name, url.format(port=ports.choose())).splitlines()[-1]


def test_another_kind_of_server_is_distinguished_from_one_that_requires_tls():
    def answer(server):
        with contextlib.suppress(OSError):  # the test has ended
            while True:
                with server.accept()[0] as caller:
                    caller.recv(100)
                    caller.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=answer, args=[server], daemon=True).start()
        port = server.getsockname()[1]
        database = given.complaint("DATABASE_URL", f"postgresql://me@127.0.0.1:{port}/shop")
        broker = given.complaint("BROKER_URL", f"redis://127.0.0.1:{port}/0")

    for message in (database, broker):
        assert message.endswith("Something else answers there: correct the host and port.")


@pytest.mark.slow
def test_a_command_without_its_servers_prints_sentences():
    free = ports.choose()
    urls = {
        "DATABASE_URL": f"postgresql://me:hidden@127.0.0.1:{free}/shop",
        "BROKER_URL": f"redis://127.0.0.1:{free}/0",
    }
    words = ("showmigrations", "--skip-checks")
    done = manage(*words, SECRET_KEY="x", **urls)

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith(
        f"DATABASE_URL does not work. Tried: 127.0.0.1:{free} (user me, database shop)."
    )
    assert "BROKER_URL does not work" in done.stderr
    assert "Traceback" in manage(*words, "--traceback", SECRET_KEY="x", **urls).stderr


@pytest.mark.parametrize(
    "program",
    but_first(
        [
            ["manage.py", "check"],
            ["-m", "outbox", "-A", "orderflow", "beat"],
            ["-m", "gunicorn", "orderflow.wsgi"],
        ]
    ),
    ids=["manage.py", "celery", "gunicorn"],
)
def test_missing_settings_are_reported_in_one_sentence_by_every_program(program):
    bind = ["-b", "127.0.0.1:0", "--no-control-socket"] if "gunicorn" in program else []
    done = subprocess.run(
        [sys.executable, *program, *bind],
        cwd=folders.ROOT,
        env={"PATH": os.environ["PATH"], "DATABASE_SESSIONS": "many"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode in (1, 3)
    assert "Traceback" not in done.stderr
    [sentence] = [line for line in done.stderr.splitlines() if line.startswith("OrderFlow's settings")]
    assert "SECRET_KEY (not set), BROKER_URL (not set), DATABASE_URL (not set)" in sentence
    assert "DATABASE_SESSIONS (not a valid integer)" in sentence


def test_databases_other_than_postgresql_are_refused_in_a_sentence():
    done = manage("check", SECRET_KEY="x", BROKER_URL="redis://x", DATABASE_URL="mysql://me:hidden@host/shop")

    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "DATABASE_URL must begin with postgresql://" in done.stderr


@pytest.mark.parametrize("word", but_first(["outbox_status", "demo", "send_test_notification", "chaos"]))
def test_a_command_that_needs_a_stack_reports_its_absence_and_starts_nothing(checkout, word):  # noqa: F811
    extra = ("--not-my-own-stack", "--not-my-own-stack") if word == "chaos" else ()
    done = run(checkout, word, *extra)

    assert done.returncode == 1
    assert done.stderr.startswith("Nothing is running here")
    assert not list((checkout / ".orderflow").rglob("*.log"))
    deaf_broker = run(checkout, word, *extra, DATABASE_URL="postgresql://me@127.0.0.1:1/shop")
    assert deaf_broker.stderr.startswith("Nothing is running here")


def test_help_lists_all_commands_and_starts_nothing(checkout, capsys):  # noqa: F811
    assert cli.main(["help"]) == 0
    message = capsys.readouterr().out

    assert {line.split()[0] for line in message.splitlines() if line.startswith("  ")} >= COMMANDS
    assert all(f"python3 run.py {word}" in message or f"| {word}" in message for word in cli.OWN_WORDS)
    assert not [line for line in message.splitlines() if line.startswith("  ") and len(line.split()) < 3]
    assert run(checkout, "help").returncode == 0
    assert run(checkout, "outbox_status", "--help").returncode == 0
    assert not list((checkout / ".orderflow").rglob("*.log"))


@pytest.mark.slow
def test_every_command_prints_help_without_servers_or_settings():
    assert set(environment.PLACEHOLDERS) == {"ORDERFLOW_COMMAND", "SECRET_KEY", "DATABASE_URL", "BROKER_URL"}
    assert "open dead letters" in manage("help", "replay_failures", **environment.PLACEHOLDERS).stdout


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_named(folder, monkeypatch, capsys):
    def write(*_):
        with open("/dev/full", "w") as full:
            full.write("x")

    monkeypatch.setattr(cli, "_dispatch", write)

    assert cli.main(["up"]) == 1
    assert capsys.readouterr().err.startswith(f"{folders.StackFolders().state}: No space left on device. Free")


def test_of_several_folders_the_one_without_room_is_named(folder, monkeypatch, capsys, tmp_path):
    def write(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def room(path):
        blocks = 0 if Path(path) == tmp_path else 1_000_000
        return SimpleNamespace(f_bavail=blocks, f_frsize=4096, f_files=1000, f_favail=1000)

    monkeypatch.setattr(cli, "_dispatch", write)
    monkeypatch.setattr(cli.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(cli.os, "statvfs", room)

    assert cli.main(["up"]) == 1
    assert capsys.readouterr().err.startswith(f"{tmp_path}: No space left on device. Free")


def test_a_closed_output_ends_a_command_silently():
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "run.py", "help"]
    done = subprocess.run(
        command, cwd=folders.ROOT, stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")
