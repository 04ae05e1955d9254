"""
A mail server that keeps what it receives: SMTP on one port, its ledger and faults over HTTP.

Faults apply when a message has arrived (so that `match` can be compared with recipients, subject and
Message-ID), except a `refuse` without `match`, which applies when a client connects. A message that is accepted
again does not give a second entry; its `duplicates` counts the repeats.

Mail is accepted from clients that have logged in with the run's password (AUTH PLAIN or LOGIN, any name). There
is no TLS: the server is for this machine, or for an isolated network.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import secrets
import socket
import struct
import sys
import threading
import time
from typing import Any, NoReturn

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from orderflow.sandbox.mailbox import email_documents

from . import ledger as ledgers
from .access import Access, email_url, keep_private
from .control import Control
from .faults import Strike
from .ledger import as_iso
from .messages import Request
from .provider import Provider

LARGEST_MESSAGE = 10 * 1024 * 1024
# Mailboxes of this name do not exist.
BOUNCING = "bounce"
# Senders of these names are refused: at once, or in response to the recipient, as many servers do.
FORBIDDEN, FORBIDDEN_LATER = "forbidden", "forbidden-later"
NOTHING = Strike()
LOGIN_FIRST = "530 5.7.0 Authentication required"


def create(arguments: argparse.Namespace, control: Control) -> Provider:
    if arguments.account:
        keep_private(arguments.account, email_url(arguments.password, arguments.address))
    logging.getLogger("mail.log").addFilter(_is_about_us)
    post = PostOffice(control, Access(arguments.password))
    listener = _listener(arguments.host, arguments.smtp_port)
    threading.Thread(target=_run, args=(post, listener), name="smtp", daemon=True).start()
    return SmtpSide(control.ledger)


class SmtpSide(Provider):
    """The HTTP interface: only what every server has."""

    name = "smtp"

    def key_of(self, request: Request) -> str | None:
        return None


class PostOffice:
    """
    Accepts mail from logged-in clients, unless a fault applies. The hooks have the names that aiosmtpd calls.
    """

    def __init__(self, control: Control, access: Access) -> None:
        self._access = access
        self.ledger = control.ledger
        self.faults = control.faults
        self.calls = control.calls
        # Accepting continues when the client hangs up; without a reference the loop may drop the task.
        self._accepting: set[asyncio.Task[None]] = set()

    def log_in(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, shown: LoginPassword
    ) -> AuthResult:
        if self._access.is_password(shown.password):
            return AuthResult(success=True)
        self.note("AUTH", status=535)
        return AuthResult(success=False, handled=False)

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        # aiosmtpd could require it too, but would warn about missing TLS for every connection.
        if not session.authenticated:
            self.note("MAIL", address, status=530)
            return LOGIN_FIRST
        if _is_named(address, FORBIDDEN):
            self.note("MAIL", address, status=553)
            return _sender_rejected(address)
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_NOOP(self, server: SMTP, session: Session, envelope: Envelope, argument: str) -> str:
        """End a kept connection while new ones are refused, as a server does that goes down."""
        if self.faults.would_strike("refuse"):
            await _hang_up(server, reset=True)
        return "250 OK"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if _is_named(envelope.mail_from or "", FORBIDDEN_LATER):
            self.note("RCPT", address, status=553)
            return _sender_rejected(envelope.mail_from or "")
        if _is_named(address, BOUNCING):
            self.note("RCPT", address, status=550)
            return f"550 5.1.1 <{address}>: Recipient address rejected: User unknown"
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        content = envelope.original_content
        assert isinstance(content, bytes)
        document = email_documents.document(
            content, mail_from=envelope.mail_from or "", recipients=list(envelope.rcpt_tos)
        )
        strike = self.faults.strike(*document["recipients"], document["subject"], document["message_id"])
        reply = None
        try:
            reply = await self._outcome(document, strike)
        finally:
            status = int(reply[:3]) if reply and reply[:3].isdigit() else None
            recipients = ",".join(document["recipients"])
            self.note("DATA", recipients, key=document["message_id"], strike=strike, status=status)
        if reply is None:
            await _hang_up(server, reset=strike.kind == "refuse")
        return reply

    def note(
        self,
        command: str,
        recipients: str = "",
        *,
        key: str | None = None,
        strike: Strike = NOTHING,
        status: int | None = None,
    ) -> None:
        self.calls.note(
            at=as_iso(time.time()),
            method=command,
            path=recipients,
            key=key,
            fault="+".join(strike.names) or None,
            status=status,
        )

    async def _outcome(self, document: dict[str, Any], strike: Strike) -> str | None:
        """Process the message and return the reply; None: hang up instead."""
        if strike.kind in ("refuse", "drop_before", "hang"):
            await asyncio.sleep(strike.latency)
            return None
        if strike.kind in ("error", "rate_limit"):
            await asyncio.sleep(strike.latency)
            return _failure(strike)
        task = asyncio.create_task(self._accept(document, strike.latency))
        self._accepting.add(task)
        task.add_done_callback(self._accepting.discard)
        await asyncio.shield(task)
        if strike.kind == "drop_after":
            return None
        if strike.kind == "malformed":
            return "?!"
        return f"250 2.0.0 OK: queued as {secrets.token_hex(5).upper()}"

    async def _accept(self, document: dict[str, Any], latency: float) -> None:
        await asyncio.sleep(latency)
        # One label for both: the lookup for every message must be fast even if all go to one recipient.
        # A message without an id equals no other.
        identity = " ".join((document["message_id"] or secrets.token_hex(12), *sorted(document["recipients"])))
        with self.ledger.transaction():
            known = self.ledger.find("email", ledgers.labelled("identity", identity), limit=1)
            if known:
                self.ledger.count_again(known[0].seq)
                again = known[0].document
                self.ledger.change("email", known[0].id, again | {"duplicates": again["duplicates"] + 1})
                return
            self.ledger.record("email", secrets.token_hex(12), document, labels=[("identity", identity)])


class _Refusing(asyncio.Protocol):
    """Accepts a connection and resets it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        _reset(transport)


def _is_about_us(record: logging.LogRecord) -> bool:
    """False for aiosmtpd's warning, at every login, about a deprecated attribute that it sets itself."""
    return "login_data is deprecated" not in record.getMessage()


def _is_named(address: str, name: str) -> bool:
    return address.rpartition("@")[0].lower() == name


def _sender_rejected(address: str) -> str:
    return f"553 5.7.1 <{address}>: Sender address rejected: not owned by user"


def _failure(strike: Strike) -> str:
    status = strike.status or (452 if strike.kind == "rate_limit" else 451)
    enhanced = f"{status // 100}.7.0" if strike.kind == "rate_limit" else f"{status // 100}.3.0"
    return f"{status} {enhanced} A sandbox fault requests status {status}"


async def _hang_up(server: SMTP, *, reset: bool) -> NoReturn:
    """End the connection. Never returns: aiosmtpd cancels the handler of a lost connection."""
    if reset:
        _reset(server.transport)
    else:
        server.transport.close()
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


def _reset(transport: asyncio.BaseTransport) -> None:
    peer = transport.get_extra_info("socket")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert isinstance(transport, asyncio.WriteTransport)
    transport.abort()


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol given: otherwise asyncio does not detect TCP and leaves Nagle's algorithm on.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(512)
    except (OSError, OverflowError) as error:
        sys.exit(f"smtp: cannot listen on {host}:{port}: {error}. Choose another --smtp-port.")
    listener.setblocking(False)
    return listener


def _run(post: PostOffice, listener: socket.socket) -> None:
    asyncio.run(_serve(post, listener))


async def _serve(post: PostOffice, listener: socket.socket) -> None:
    loop = asyncio.get_running_loop()

    def protocol() -> asyncio.Protocol:
        # Before a message has arrived, only a fault without `match` can apply.
        strike = post.faults.strike(kinds=("refuse",))
        if strike.kind:
            post.note("CONNECT", strike=strike)
            return _Refusing()
        # With the host name given: otherwise aiosmtpd resolves it for every connection.
        return SMTP(  # type: ignore[no-any-return]
            post,
            data_size_limit=LARGEST_MESSAGE,
            enable_SMTPUTF8=True,
            hostname="sandbox",
            ident="OrderFlow sandbox",
            loop=loop,
            authenticator=post.log_in,
            auth_require_tls=False,
        )

    server = await loop.create_server(protocol, sock=listener)
    await server.serve_forever()
