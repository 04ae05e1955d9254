"""The mail server: what it keeps, and what it does when it is told to misbehave."""

from __future__ import annotations

import smtplib
import time

import pytest

from orderflow.sandbox.launch import Sandbox

from .clients import ask, email, send_email


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


def test_the_envelope_decides_who_received_it(smtp: Sandbox) -> None:
    with smtplib.SMTP("127.0.0.1", smtp.smtp_port or 0, local_hostname="tests") as connection:
        connection.send_message(email(), to_addrs=["ada@example.com", "hidden@example.com"])

    [entry] = smtp.ledger()
    assert (entry["recipients"], entry["to"]) == (["ada@example.com", "hidden@example.com"], "ada@example.com")


def test_the_same_message_again_is_counted_and_not_kept_twice(smtp: Sandbox) -> None:
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


def test_malformed_keeps_and_replies_with_nonsense(smtp: Sandbox) -> None:
    smtp.control(fault="malformed", times=1)

    with pytest.raises(smtplib.SMTPDataError):
        send_email(smtp, email())
    assert smtp.count() == 1


def test_a_slow_server_keeps_the_message_even_if_the_client_has_lost_patience(smtp: Sandbox) -> None:
    smtp.control(fault="slow", latency_ms=300, times=1)

    with pytest.raises((TimeoutError, smtplib.SMTPServerDisconnected)):
        send_email(smtp, email(), timeout=0.1)

    time.sleep(0.4)
    assert smtp.count() == 1


@pytest.mark.parametrize("match", ["ada@example.com", "OF-7", "<order-7@example.com>"])
def test_a_fault_hits_only_what_it_matches(smtp: Sandbox, match: str) -> None:
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
    with smtplib.SMTP("127.0.0.1", smtp.smtp_port or 0, local_hostname="tests") as connection:
        connection.sendmail("shop@example.com", ["ada@example.com"], content)

    assert [entry["subject"] for entry in smtp.ledger()] == [subject]


def test_a_killed_mail_server_comes_back_with_its_messages(smtp: Sandbox) -> None:
    send_email(smtp, email())
    port = smtp.smtp_port

    smtp.kill()
    smtp.start()
    send_email(smtp, email())

    assert smtp.smtp_port == port
    assert [entry["duplicates"] for entry in smtp.ledger()] == [1]
