"""
The life of a token: expiry, rotation with an overlap, allowed networks, and identification of a leaked one.
"""

from __future__ import annotations

import datetime as dt
import errno
import io
import os
import pty
import subprocess
import sys

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from orderflow import checks
from orders.clients import tokens
from orders.models import ApiClient as ClientRow
from orders.models import ApiToken, SupersededSecret
from outbox import telemetry
from tests import processes
from tests.orders.api.client import ORDERS, ApiClient, assert_problem

pytestmark = pytest.mark.django_db

HOUR = dt.timedelta(hours=1)


def api_token(*arguments: str) -> tuple[str, str]:
    """The command's two outputs."""
    out, messages = io.StringIO(), io.StringIO()
    call_command("api_token", *arguments, stdout=out, stderr=messages)
    return out.getvalue().strip(), messages.getvalue()


def create(*arguments: str) -> str:
    return api_token("create", "shop", "--scopes", "orders:read", *arguments)[0]


def identify(monkeypatch, text: str) -> tuple[str, str]:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    return api_token("identify")


def status_with(secret: str, **extra: str) -> int:
    return Client().get(ORDERS, headers={"Authorization": f"Bearer {secret}"}, **extra).status_code


def days_left(token: ApiToken) -> float:
    return (token.expires_at - dt.datetime.now(dt.UTC)) / dt.timedelta(days=1)


def what_is_left(terminal: int) -> bytes:
    """The output of a terminal whose other end is closed."""
    try:
        return os.read(terminal, 10_000)
    except OSError as ended:
        if ended.errno != errno.EIO:  # Linux reports the end this way
            raise
        return b""


def pass_hours(hours: int) -> None:
    """Make secrets older."""
    for model, end in ((ApiToken, "expires_at"), (SupersededSecret, "valid_until")):
        for row in model.objects.all():
            setattr(row, end, getattr(row, end) - hours * HOUR)
            row.save()


def test_a_token_expires_by_default(settings):
    settings.API_TOKEN_LIFETIME_DAYS = 90
    create()
    api_token("create", "short", "--scopes", "orders:read", "--expires", "7")
    api_token("create", "for ever", "--scopes", "orders:read", "--never-expires")
    _, messages = api_token("rotate", "short")

    ends = {token.name: token for token in ApiToken.objects.all()}
    assert 89 < days_left(ends["shop"]) < 91
    assert 89 < days_left(ends["short"]) < 91
    assert f"valid until {ends['short'].expires_at:%Y-%m-%d}" in messages
    assert ends["for ever"].expires_at is None


def test_a_token_made_by_code_expires_too():
    token, _ = tokens.create("shop", scopes=[tokens.READ])

    assert 364 < days_left(token) < 366


def test_a_rotated_token_works_with_its_new_secret_only():
    old = create()
    new, messages = api_token("rotate", "shop")

    assert (status_with(old), status_with(new)) == (401, 200)
    assert "stays valid" not in messages


def test_with_an_overlap_both_secrets_work_until_it_ends():
    old = create()
    new, messages = api_token("rotate", "shop", "--overlap", "24")

    assert (status_with(old), status_with(new)) == (200, 200)
    assert f"…{old[-4:]} stays valid until" in messages
    pass_hours(23)
    assert (status_with(old), status_with(new)) == (200, 200)
    pass_hours(2)
    assert (status_with(old), status_with(new)) == (401, 200)


def test_an_overlap_prolongs_no_secret():
    old = create("--expires", "1")
    api_token("rotate", "shop", "--overlap", "48")
    pass_hours(25)

    assert status_with(old) == 401


def test_a_rotation_without_overlap_ends_all_secrets_before():
    first = create()
    second, _ = api_token("rotate", "shop", "--overlap", "24")
    third, messages = api_token("rotate", "shop", "--overlap", "24")
    assert [status_with(secret) for secret in (first, second, third)] == [200, 200, 200]
    assert messages.count("stays valid") == 2

    fourth, _ = api_token("rotate", "shop")
    assert [status_with(secret) for secret in (first, second, third, fourth)] == [401, 401, 401, 200]


def test_a_revoked_token_ends_with_all_its_secrets():
    old = create()
    new, _ = api_token("rotate", "shop", "--overlap", "24")
    api_token("revoke", "shop")

    assert (status_with(old), status_with(new)) == (401, 401)


def test_an_expired_token_that_is_rotated_works_again():
    old = create("--expires", "1")
    pass_hours(25)
    new, _ = api_token("rotate", "shop", "--overlap", "24")

    assert (status_with(old), status_with(new)) == (401, 200)


def test_tokens_that_never_expire_are_listed_on_request(db):
    tokens.create("dated", scopes=["orders:read"])
    tokens.create("endless", scopes=["orders:read"], expires_in=tokens.NEVER)
    tokens.create("ended", scopes=["orders:read"], expires_in=tokens.NEVER)
    tokens.revoke("ended")

    [line] = api_token("list", "--without-expiry")[0].splitlines()
    assert line.startswith("endless\t")
    tokens.rotate("endless")
    assert api_token("list", "--without-expiry")[0] == ""


def test_the_list_shows_which_old_secrets_are_valid_and_used():
    old = create()
    api_token("rotate", "shop", "--overlap", "24")
    [line] = api_token("list")[0].splitlines()
    assert f"…{old[-4:]} until" in line
    assert line.endswith("last used never")

    status_with(old)
    [line] = api_token("list")[0].splitlines()
    assert line.endswith("UTC")
    assert old not in line


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("192.0.2.9", 200),
        ("::ffff:192.0.2.9", 200),
        ("2001:db8::9", 200),
        ("192.0.3.1", 403),
        ("2001:db9::1", 403),
        ("", 403),
    ],
)
def test_a_token_is_accepted_from_its_networks_only(address, status):
    secret = create("--from", "192.0.2.0/24", "2001:db8::/32")

    assert status_with(secret, REMOTE_ADDR=address) == status
    assert (ApiToken.objects.get().last_used_at is None) == (status == 403)


def test_networks_can_be_changed_and_apply_to_old_secrets():
    old = create("--from", "192.0.2.0/24")
    new, _ = api_token("rotate", "shop", "--overlap", "24")
    assert (status_with(old), status_with(new)) == (403, 403)

    api_token("allow", "shop", "--from", "127.0.0.0/8")
    assert (status_with(old), status_with(new)) == (200, 200)
    api_token("allow", "shop", "--from", "198.51.100.7")
    assert (status_with(old), status_with(new)) == (403, 403)
    api_token("allow", "shop", "--from-anywhere")
    assert (status_with(old), status_with(new)) == (200, 200)


def test_a_forged_address_is_not_accepted(settings):
    secret = create("--from", "192.0.2.0/24")
    made_up = {"HTTP_X_FORWARDED_FOR": "192.0.2.1"}
    assert status_with(secret, REMOTE_ADDR="203.0.113.5", **made_up) == 403

    settings.TRUSTED_PROXIES = 1
    assert status_with(secret, REMOTE_ADDR="10.0.0.1", HTTP_X_FORWARDED_FOR="192.0.2.1, 203.0.113.5") == 403
    assert status_with(secret, REMOTE_ADDR="10.0.0.1", HTTP_X_FORWARDED_FOR="203.0.113.5, 192.0.2.1") == 200


def test_a_stolen_token_is_refused_with_the_reason_and_does_not_use_up_the_clients_rate(settings):
    settings.API_RATE_LIMIT = "2/minute"
    seen: list[tuple[str, dict]] = []

    def receive(signal, fields):
        seen.append((signal, fields))

    api = ApiClient(name="shop")
    tokens.allow("shop", networks=["192.0.2.0/24"])
    telemetry.register(receive)
    try:
        answers = [api.get(ORDERS) for _ in range(3)]
    finally:
        telemetry.unregister(receive)

    assert_problem(answers[0], 403, "address-not-allowed")
    assert_problem(answers[2], 429, "rate-limited")
    assert ("api_token.address_refused", {"name": "shop"}) in seen
    tokens.allow("shop", networks=["127.0.0.1"])
    assert api.get(ORDERS).status_code == 200


def test_a_second_token_belongs_to_the_client_that_is_named():
    create()
    with pytest.raises(CommandError, match="a token named shop already"):
        create("--client", "shop")
    with pytest.raises(CommandError, match="a client named shop already"):
        tokens.revoke("shop")
        ApiToken.objects.update(name="old shop")
        create()
    api_token("create", "reports", "--client", "shop", "--scopes", "orders:read:all")

    assert {token.client for token in ApiToken.objects.all()} == {ClientRow.objects.get()}


def test_a_refused_token_leaves_no_client_behind():
    create()
    with pytest.raises(CommandError, match="already"):
        create("--client", "another")

    assert ClientRow.objects.get().name == "shop"


def test_the_end_of_a_secret_is_kept_and_shown():
    secret = create()

    assert ApiToken.objects.get().last_four == secret[-4:]
    assert f"…{secret[-4:]}" in api_token("list")[0]


@pytest.mark.parametrize("found", ["{}", " {}\n", "Authorization: Bearer {}", 'TOKEN="{}"  # do not commit'])
def test_a_leaked_secret_is_identified_wherever_it_was_found(monkeypatch, found):
    secret = create("--client", "Shop Ltd")
    output, messages = identify(monkeypatch, found.format(secret))

    assert output.startswith("token shop of client Shop Ltd: valid until ")
    assert "scopes orders:read, last used never" in output
    assert "api_token rotate shop" in messages
    assert secret not in output + messages


def test_secrets_of_the_past_are_identified_too(monkeypatch):
    first = create()
    second, _ = api_token("rotate", "shop")
    third, _ = api_token("rotate", "shop", "--overlap", "24")

    assert "shop: superseded, " in identify(monkeypatch, first)[0]
    assert "shop: valid until" in identify(monkeypatch, second)[0]
    pass_hours(25)
    assert "shop: superseded, " in identify(monkeypatch, second)[0]
    pass_hours(24 * 400)
    assert "shop: expired, " in identify(monkeypatch, third)[0]
    api_token("revoke", "shop")
    assert "shop: revoked, " in identify(monkeypatch, third)[0]
    assert "shop: revoked, " in identify(monkeypatch, first)[0]


@pytest.mark.parametrize("text", ["", "of_live_guess", "of_test_" + "x" * 43, "\x00", "\udcff"])
def test_an_unknown_secret_belongs_to_no_token(monkeypatch, text):
    create()
    with pytest.raises(CommandError, match="not the secret"):
        identify(monkeypatch, text)


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_at_a_terminal_the_secret_is_prompted_for_and_not_shown():
    secret = create()
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "manage.py", "api_token", "identify"],
        cwd=processes.ROOT,
        env=processes.environment(),
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    os.close(theirs)
    with process, os.fdopen(ours, "r+b", buffering=0) as terminal:
        prompt = b""
        while not prompt.endswith(b"Secret: "):
            prompt += process.stderr.read(1) or pytest.fail(prompt.decode())
        terminal.write(f"{secret}\n".encode())
        out, messages = process.communicate(timeout=processes.PATIENCE)
        echoed = what_is_left(ours)

    assert b"token shop of client shop" in out, messages
    assert secret.encode() not in out + messages + echoed


def test_a_secret_is_never_taken_as_an_argument():
    secret = create()
    with pytest.raises(CommandError, match="unrecognized"):
        api_token("identify", secret)


def test_a_token_in_use_that_expires_soon_is_warned_of():
    for name, days, used in [("soon", "20", True), ("later", "60", True), ("unused", "20", False)]:
        secret, _ = api_token("create", name, "--scopes", "orders:read", "--expires", days)
        if used:
            assert status_with(secret) == 200
    tokens.create("ended", scopes=[tokens.READ], expires_in=20 * 24 * HOUR)
    tokens.revoke("ended")

    [warning] = checks.check_tokens(databases=["default"])
    assert warning.msg.startswith("The API token soon is in use and expires at ")
    tokens.rotate("soon")
    assert checks.check_tokens(databases=["default"]) == []
    assert checks.check_tokens() == []
