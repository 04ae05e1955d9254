"""Mails that share a connection to the mail server."""

from __future__ import annotations

import asyncio
import contextlib
import uuid

import pytest
from aiosmtpd.controller import Controller

from notifications.channels import smtp
from notifications.channels.email import EmailChannel
from notifications.models import Notification
from orderflow.stack import ports
from outbox.resilience import Outage, Transient
from tests.conftest import close_breakers
from tests.processes import eventually


class Office:
    """A mail server's view: the connections it got, and the mails of each."""

    def __init__(self):
        self.mails, self.reply, self.is_silent = {}, "250 OK", False

    async def handle_EHLO(self, server, session, envelope, hostname):
        session.host_name = hostname
        self.mails[session.peer] = 0
        return "250 HELP"

    async def handle_NOOP(self, server, session, envelope, argument):
        while self.is_silent:
            await asyncio.sleep(0.01)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        self.mails[session.peer] += self.reply.startswith("250")
        return self.reply


@pytest.fixture
def office(settings):
    settings.EMAIL_BACKEND = "notifications.channels.smtp.Backend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", ports.choose()
    settings.EMAIL_HOST_USER = settings.EMAIL_HOST_PASSWORD = ""
    settings.EMAIL_USE_TLS = settings.EMAIL_USE_SSL = False
    close_breakers()
    yield Office()
    smtp.kept.close()
    close_breakers()


@contextlib.contextmanager
def opened(office, settings):
    server = Controller(office, hostname="127.0.0.1", port=settings.EMAIL_PORT)
    server.start()
    try:
        yield
    finally:
        server.stop()


def send():
    notification = Notification(
        pk=1,
        message_id=uuid.uuid4(),
        order_number="1042",
        template="placed",
        recipient="ada@example.com",
        subject="subject",
        text="text",
    )
    return EmailChannel().send(notification)


def test_mails_in_a_row_share_a_connection(office, settings):
    with opened(office, settings):
        for _ in range(3):
            send()

    assert list(office.mails.values()) == [3]


def test_a_connection_ends_after_its_most_mails(office, settings, monkeypatch):
    monkeypatch.setattr(smtp, "MOST_MAILS", 2)
    with opened(office, settings):
        for _ in range(5):
            send()

    assert list(office.mails.values()) == [2, 2, 1]


def test_a_server_that_has_restarted_gets_a_new_connection_and_each_mail_once(office, settings):
    with opened(office, settings):
        send()
    with opened(office, settings):
        send()

    assert list(office.mails.values()) == [1, 1]


def test_a_server_that_has_gone_is_an_outage_and_no_unknown_outcome(office, settings):
    with opened(office, settings):
        send()

    with pytest.raises(Outage):
        send()


def test_after_an_error_the_connection_is_not_used_again(office, settings):
    with opened(office, settings):
        send()
        office.reply = "451 later"
        with pytest.raises(Transient):
            send()
        office.reply = "250 OK"
        send()

    assert list(office.mails.values()) == [1, 1]


def test_another_account_gets_another_connection(office, settings):
    with opened(office, settings):
        send()
        settings.EMAIL_TIMEOUT = 3
        send()

    assert list(office.mails.values()) == [1, 1]


@pytest.mark.slow
def test_an_unused_connection_is_closed(office, settings, monkeypatch):
    monkeypatch.setattr(smtp, "KEPT_FOR", 0.05)
    with opened(office, settings):
        send()
        eventually(lambda: not smtp.kept._idle, "no kept connection")
        send()

    assert list(office.mails.values()) == [1, 1]


@pytest.mark.slow
def test_a_kept_connection_without_an_answer_is_replaced_within_a_second(office, settings):
    with opened(office, settings):
        send()
        office.is_silent = True
        send()
        office.is_silent = False

    assert list(office.mails.values()) == [1, 1]
