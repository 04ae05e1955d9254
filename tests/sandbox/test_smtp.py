"""The mail server: the mail it keeps, and its faults."""

from __future__ import annotations

import base64
import smtplib
import stat
import time
from pathlib import Path

import psutil
import pytest

from orderflow.configuration import email_url
from orderflow.sandbox.launch import Sandbox

from .clients import ask, email, mail_client, send_email

WRONG = ["wrong", " ", "\N{SNOWMAN}", "sandbox"]


def test_an_accepted_email_is_kept_with_all_its_parts(smtp: Sandbox) -> None:
    send_email(smtp, email(Subject="Bestellung für Ada", X_Order="OF-1"))

    [entry] = smtp.ledger()
    assert (entry["kind"], entry["message_id"]) == ("email", "<order-1-shipped@example.com>")
    assert (entry["mail_from"], entry["recipients"]) == ("shop@example.com", ["ada@example.com"])
    assert (entry["subject"], entry["to"], entry["from"]) == (
        "Bestellung für Ada",
        "ada@example.com",
        "shop@example.com",
    )
    assert entry["text"].strip() == "Hello Ada, your parcel costs £ 0."
    assert entry["html"].strip() == "<p style='color: teal'>Hello <b>Ada</b></p>"
    assert ["X-Order", "OF-1"] in entry["headers"]
    assert entry["raw"].startswith("From: shop@example.com\r\n")


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_mail_is_accepted_after_a_login_with_the_password(smtp: Sandbox, mechanism: str) -> None:
    with mail_client(smtp, password="") as connection:
        connection.ehlo()
        assert sorted(connection.esmtp_features["auth"].split()) == ["LOGIN", "PLAIN"]
        connection.user, connection.password = "anybody", smtp.password
        log_in = connection.auth_plain if mechanism == "PLAIN" else connection.auth_login
        assert connection.auth(mechanism, log_in)[0] == 235
        connection.send_message(email())
        connection.send_message(email())  # a login lasts as long as its connection

    assert [entry["duplicates"] for entry in smtp.ledger()] == [1]


@pytest.mark.parametrize("greeting", ["EHLO", "HELO"])
def test_mail_without_a_login_is_refused_at_every_step(smtp: Sandbox, greeting: str) -> None:
    with mail_client(smtp, password="") as connection:
        connection.docmd(greeting, "tests")
        connection.does_esmtp = greeting == "EHLO"
        assert connection.mail("shop@example.com")[0] == 530
        assert connection.rcpt("ada@example.com")[0] == 503
        assert connection.docmd("DATA")[0] == 503
        with pytest.raises(smtplib.SMTPSenderRefused, match="530"):
            connection.send_message(email())

    assert smtp.ledger() == []
    assert {(call["method"], call["status"]) for call in smtp.calls()} == {("MAIL", 530)}


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_a_wrong_password_is_refused(smtp: Sandbox, mechanism: str) -> None:
    half = smtp.password[:-1]
    with mail_client(smtp, password="") as connection:
        connection.ehlo()
        for shown in (*WRONG, half, f"{smtp.password} "):
            answer = _log_in(connection, mechanism, shown)
            assert answer == (535, b"5.7.8 Authentication credentials invalid"), shown
        assert connection.mail("shop@example.com")[0] == 530

    assert {(call["method"], call["status"]) for call in smtp.calls()} == {("AUTH", 535), ("MAIL", 530)}
    assert smtp.ledger() == []


@pytest.mark.parametrize(
    "words", ["", "PLAIN =", "PLAIN AA==", "PLAIN AAAAAAA=", "XOAUTH2 AA==", "LOGIN ~", "PLAIN a b"]
)
def test_a_malformed_login_is_refused(smtp: Sandbox, words: str) -> None:
    with mail_client(smtp, password="") as connection:
        connection.ehlo()
        assert connection.docmd("AUTH", words)[0] in (501, 504, 535)
        assert connection.mail("shop@example.com")[0] == 530
        connection.login("sandbox", smtp.password)
        connection.send_message(email())

    assert smtp.count() == 1


def test_the_password_is_in_no_log_and_in_no_command_line(smtp: Sandbox) -> None:
    with pytest.raises(smtplib.SMTPAuthenticationError), mail_client(smtp, password="another-secret"):
        pass
    send_email(smtp, email())

    assert smtp.process is not None
    shown = smtp.log_file.read_text() + " ".join(psutil.Process(smtp.process.pid).cmdline()) + str(smtp.calls())
    for secret in (smtp.password, "another-secret"):
        for form in (secret, base64.b64encode(secret.encode()).decode().rstrip("=")):
            assert form not in shown


def test_logins_are_not_logged(tmp_path: Path) -> None:
    with Sandbox("smtp", tmp_path) as server:
        send_email(server, email())
        with pytest.raises(smtplib.SMTPAuthenticationError), mail_client(server, password="wrong"):
            pass

        assert server.log_file.read_text().splitlines() == [f"smtp listens on 127.0.0.1:{server.port}"]


def test_clients_find_their_address_and_password_in_a_file_that_others_cannot_read(tmp_path: Path) -> None:
    account = tmp_path / "email_url"
    options = ["--account", str(account), "--address", "mail.example:2525"]
    with Sandbox("smtp", tmp_path, options=options) as server:
        assert stat.S_IMODE(account.stat().st_mode) == 0o600
        found = email_url.parse(account.read_text())
        assert (found["EMAIL_HOST"], found["EMAIL_PORT"]) == ("mail.example", 2525)
        with mail_client(server, password=found["EMAIL_HOST_PASSWORD"]) as connection:
            connection.send_message(email())
        assert server.count() == 1


def test_the_envelope_decides_who_received_it(smtp: Sandbox) -> None:
    with mail_client(smtp) as connection:
        connection.send_message(email(), to_addrs=["ada@example.com", "hidden@example.com"])

    [entry] = smtp.ledger()
    assert (entry["recipients"], entry["to"]) == (["ada@example.com", "hidden@example.com"], "ada@example.com")


def test_a_repeated_message_is_counted_and_not_stored_twice(smtp: Sandbox) -> None:
    for _ in range(3):
        send_email(smtp, email())
    send_email(smtp, email(To="charles@example.com"))
    send_email(smtp, email(**{"Message-ID": "<order-2@example.com>"}))

    assert [(entry["recipients"], entry["duplicates"]) for entry in smtp.ledger()] == [
        (["ada@example.com"], 2),
        (["charles@example.com"], 0),
        (["ada@example.com"], 0),
    ]
    assert ask(smtp, "GET", "/_ledger?limit=0").json["repeats"] == 2


def test_a_mailbox_that_does_not_exist_bounces(smtp: Sandbox) -> None:
    with pytest.raises(smtplib.SMTPRecipientsRefused) as raised:
        send_email(smtp, email(To="bounce@example.com"))

    [(status, reason)] = raised.value.recipients.values()
    assert (status, reason[:5]) == (550, b"5.1.1")
    assert smtp.ledger() == []
    assert [(call["method"], call["status"]) for call in smtp.calls()] == [("RCPT", 550)]


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ({"fault": "error"}, 451),
        ({"fault": "error", "status": 550}, 550),
        ({"fault": "rate_limit"}, 452),
        ({"fault": "rate_limit", "status": 421}, 421),
    ],
)
def test_an_error_is_temporary_or_permanent(smtp: Sandbox, fault: dict[str, object], status: int) -> None:
    smtp.control(**fault, times=1)

    with pytest.raises(smtplib.SMTPResponseException) as raised:
        send_email(smtp, email())

    assert raised.value.smtp_code == status
    assert smtp.ledger() == []
    send_email(smtp, email())
    assert smtp.count() == 1


@pytest.mark.parametrize("match", [None, "ada@example.com"])
def test_refuse_closes_the_connection(smtp: Sandbox, match: str | None) -> None:
    smtp.control(fault="refuse", times=1, match=match)

    with pytest.raises((ConnectionError, smtplib.SMTPServerDisconnected)):
        send_email(smtp, email())

    assert smtp.ledger() == []
    [call] = smtp.calls()
    assert (call["method"], call["fault"]) == ("CONNECT" if match is None else "DATA", "refuse")


@pytest.mark.parametrize(("fault", "entries"), [("drop_before", 0), ("hang", 0), ("drop_after", 1)])
def test_drop_closes_without_a_reply_before_or_after_keeping(smtp: Sandbox, fault: str, entries: int) -> None:
    smtp.control(fault=fault, times=1, latency_ms=50)

    with pytest.raises(smtplib.SMTPServerDisconnected):
        send_email(smtp, email())
    assert smtp.count() == entries

    send_email(smtp, email())
    [entry] = smtp.ledger()
    assert entry["duplicates"] == entries


def test_malformed_stores_the_message_and_sends_an_invalid_reply(smtp: Sandbox) -> None:
    smtp.control(fault="malformed", times=1)

    with pytest.raises(smtplib.SMTPDataError):
        send_email(smtp, email())
    assert smtp.count() == 1


def test_a_slow_server_stores_the_message_even_if_the_client_has_timed_out(smtp: Sandbox) -> None:
    smtp.control(fault="slow", latency_ms=300, times=1)

    with pytest.raises((TimeoutError, smtplib.SMTPServerDisconnected)), mail_client(smtp) as connection:
        assert connection.sock is not None
        connection.mail("shop@example.com")
        connection.rcpt("ada@example.com")
        connection.sock.settimeout(0.1)
        connection.data(email().as_bytes())

    time.sleep(0.4)
    assert smtp.count() == 1


@pytest.mark.parametrize("match", ["ada@example.com", "OF-7", "<order-7@example.com>"])
def test_a_fault_applies_only_to_matching_requests(smtp: Sandbox, match: str) -> None:
    smtp.control(fault="error", match=match)
    send_email(smtp, email(To="charles@example.com", Subject="Order OF-6", **{"Message-ID": "<6@example.com>"}))

    with pytest.raises(smtplib.SMTPDataError):
        send_email(smtp, email(Subject="Order OF-7", **{"Message-ID": "<order-7@example.com>"}))

    assert [entry["subject"] for entry in smtp.ledger()] == ["Order OF-6"]
    assert [fault["struck"] for fault in smtp.faults()] == [1]


@pytest.mark.parametrize(
    ("content", "subject"),
    [
        (b"", ""),
        (b"Subject: =?nonsense?q?x?=\r\n\r\n\xff\xfe", "=?nonsense?q?x?="),
        (b"Subject: \xe4\r\nContent-Type: text/plain; charset=nonsense\r\n\r\nx", "\\xe4"),
        (b"Subject: a\r\n b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nx", "a b"),
    ],
)
def test_a_broken_email_is_kept_as_far_as_it_can_be_read(smtp: Sandbox, content: bytes, subject: str) -> None:
    with mail_client(smtp) as connection:
        connection.sendmail("shop@example.com", ["ada@example.com"], content)

    assert [entry["subject"] for entry in smtp.ledger()] == [subject]


def test_a_killed_mail_server_restarts_with_its_messages(smtp: Sandbox) -> None:
    send_email(smtp, email())
    port = smtp.smtp_port

    smtp.kill()
    smtp.start()
    send_email(smtp, email())

    assert smtp.smtp_port == port
    assert [entry["duplicates"] for entry in smtp.ledger()] == [1]


def _log_in(connection: smtplib.SMTP, mechanism: str, shown: str) -> tuple[int, bytes]:
    """Log in with what smtplib would not send: it writes ASCII only."""
    name, password = b"sandbox", shown.encode()
    if mechanism == "PLAIN":
        return connection.docmd("AUTH PLAIN", _encoded(b"\0" + name + b"\0" + password))
    assert connection.docmd("AUTH LOGIN", _encoded(name))[0] == 334
    return connection.docmd(_encoded(password))


def _encoded(shown: bytes) -> str:
    return base64.b64encode(shown).decode()
