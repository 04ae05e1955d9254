"""A page in a browser on the same machine can neither read nor control the sandbox."""

from __future__ import annotations

import contextlib
import http.client
import stat
import threading
from pathlib import Path

import pytest

from orderflow.sandbox import access
from orderflow.sandbox.launch import NAMES, Sandbox, World

from .clients import ask, ship

CONTROL = [
    ("GET", "/_ledger"),
    ("DELETE", "/_ledger"),
    ("PATCH", "/_ledger"),
    ("GET", "/_calls"),
    ("GET", "/_control"),
    ("POST", "/_control"),
    ("DELETE", "/_control"),
    ("GET", "/_anything"),
]
FOR_PEOPLE = [
    ("GET", path) for path in ("/", "/email/1", "/email/1/html", "/api/counts", "/api/received?kind=email")
]


def raw(server: Sandbox, method: str, path: str, *headers: tuple[str, str]) -> http.client.HTTPResponse:
    """Send exactly these headers."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)) as connection:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        answer.read()
        return answer


@pytest.mark.parametrize("name", NAMES)
def test_every_server_requires_the_password_before_it_shows_or_does_anything(world: World, name: str) -> None:
    server: Sandbox = getattr(world, name)
    paths = CONTROL + (FOR_PEOPLE if name == "mailbox" else [])
    for method, path in paths:
        wrong = ("Authorization", access.authorization("wrong"))
        for shown in (
            (),
            (wrong,),
            (("Authorization", "Basic"),),
            (("Authorization", f"Bearer {world.password}"),),
        ):
            answer = raw(server, method, path, ("Host", f"127.0.0.1:{server.port}"), *shown)
            assert answer.status == 401, (method, path, shown)
            assert answer.headers["WWW-Authenticate"].startswith("Basic ")
    assert raw(server, "GET", "/_health", ("Host", "localhost")).status == 200


HOSTS = [
    "evil.example",
    "evil.example:80",
    "127.0.0.1.evil.example",
    "",
    "[::1",
    "localhost@evil.example",
    "192.0.2.1",
]


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("path", ["/_ledger", "/_control", "/_health", "/", "/shipments?key=x", "/api/counts"])
def test_a_foreign_host_name_is_refused_with_and_without_password(world: World, host: str, path: str) -> None:
    shown = ("Authorization", access.authorization(world.password))
    for server in (world.warehouse, world.mailbox):
        assert raw(server, "GET", path, ("Host", host), shown).status == 421
        assert raw(server, "GET", path, shown).status == 421
        assert raw(server, "GET", path, ("Host", "localhost"), ("Host", host), shown).status == 421


def test_a_refused_request_triggers_no_fault_and_is_not_listed_in_calls(warehouse: Sandbox) -> None:
    warehouse.control(fault="error", times=1)
    raw(warehouse, "POST", "/shipments", ("Host", "evil.example"), ("Content-Length", "0"))

    assert [fault["struck"] for fault in warehouse.faults()] == [0]
    assert warehouse.calls() == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:1", "LOCALHOST", "[::1]:8101"])
def test_this_machines_own_names_are_accepted(warehouse: Sandbox, host: str) -> None:
    assert raw(warehouse, "GET", "/_health", ("Host", host)).status == 200


def test_a_server_accepts_the_names_it_was_given(tmp_path: Path) -> None:
    with Sandbox("payments", tmp_path, options=["--allow-host", "Payments"]) as payments:
        assert raw(payments, "GET", "/_health", ("Host", "payments:8080")).status == 200
        assert raw(payments, "GET", "/_health", ("Host", "smtp:8080")).status == 421


def test_the_password_is_generated_once_for_all_servers_of_a_directory_and_is_private(tmp_path: Path) -> None:
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(access.password_in(tmp_path / "new"))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 8
    assert len(set(found)) == 1
    assert len(found[0]) >= 32
    assert [path.name for path in (tmp_path / "new").iterdir()] == [access.FILE]
    assert stat.S_IMODE((tmp_path / "new" / access.FILE).stat().st_mode) == 0o600


def test_the_mailbox_reads_the_other_servers_with_the_password(world: World) -> None:
    counts = ask(world.mailbox, "GET", "/api/counts")

    assert counts.json == {"emails": 0, "sms": 0, "pushes": 0}


def test_the_providers_endpoints_do_not_require_the_password_of_the_run(warehouse: Sandbox) -> None:
    assert ship(warehouse).status == 201
