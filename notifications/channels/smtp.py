"""
Django's mail backend with limits for the replies of mail servers, and connections that serve several mails.

Connecting and logging in take longer than sending a mail. So a connection whose mail was accepted is kept for
the next one, in whatever thread. It is used only after the server has answered a `NOOP` on it: a server that
has closed it meanwhile, or restarted, costs a new connection and is never mistaken for a mail with an unknown
outcome. After any error a connection is closed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import smtplib
import threading
import time
from typing import Any

from django.core.mail.backends.smtp import EmailBackend

from outbox.http import bounded_smtp

KEPT_FOR = 5.0
"""Seconds that an unused connection is kept. Servers allow minutes, but count the connections of a client."""

MOST_MAILS = 50
"""Mails of one connection. Many servers end it after a hundred."""

OK, ANSWERS_WITHIN = 250, 1.0
"""The reply to `NOOP`, and the seconds in which a server that is up sends it."""


@dataclasses.dataclass(frozen=True)
class _Idle:
    """A connection to the server that `address` describes, which waits for its next mail until then."""

    address: tuple[Any, ...]
    client: Any
    until: float


class Kept:
    """The unused connections of this process."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._idle: list[_Idle] = []
        self._timer: threading.Timer | None = None

    def take(self, address: tuple[Any, ...]) -> Any:
        """Return a connection that the server still answers on, or None."""
        while client := self._newest(address):
            if _answers(client):
                return client
            client.close()
        return None

    def keep(self, address: tuple[Any, ...], client: Any) -> None:
        """Keep a connection for the next mail."""
        with self._guard:
            self._idle.append(_Idle(address, client, time.monotonic() + KEPT_FOR))
            if self._timer is None:
                self._start_timer()

    def close(self) -> None:
        """Close all of them."""
        with self._guard:
            idle, self._idle = self._idle, []
        _quit(idle)

    def forget(self) -> None:
        """Forget the connections of the process from which this one was forked."""
        self.__init__()  # type: ignore[misc]

    def _newest(self, address: tuple[Any, ...]) -> Any:
        with self._guard:
            for position in range(len(self._idle) - 1, -1, -1):
                if self._idle[position].address == address:
                    return self._idle.pop(position).client
        return None

    def _start_timer(self) -> None:
        self._timer = threading.Timer(KEPT_FOR, self._close_old)
        self._timer.daemon = True
        self._timer.start()

    def _close_old(self) -> None:
        now = time.monotonic()
        with self._guard:
            old = [idle for idle in self._idle if idle.until <= now]
            self._idle = [idle for idle in self._idle if idle.until > now]
            self._timer = None
            if self._idle:
                self._start_timer()
        _quit(old)


def _answers(client: Any) -> bool:
    try:
        client.renew()
        client.sock.settimeout(min(ANSWERS_WITHIN, client.timeout))
        is_ok = client.noop()[0] == OK
        client.sock.settimeout(client.timeout)
        client.renew()
    except (smtplib.SMTPException, OSError):
        return False
    return bool(is_ok)


def _quit(idle: list[_Idle]) -> None:
    for each in idle:
        with contextlib.suppress(smtplib.SMTPException, OSError):
            each.client.renew()
            each.client.quit()
        each.client.close()


kept = Kept()
os.register_at_fork(after_in_child=kept.forget)


class Backend(EmailBackend):
    """See `outbox.http.bounded_smtp`. `keep` instead of `close` leaves the connection to the next mail."""

    @property
    def connection_class(self) -> type[smtplib.SMTP]:
        """The SMTP client class."""
        return bounded_smtp.SecureSMTP if self.use_ssl else bounded_smtp.SMTP

    def open(self) -> bool | None:
        """Take a kept connection, or open one."""
        if self.connection is None:
            self.connection = kept.take(self._address)
            if self.connection is not None:
                return True
        return super().open()

    def keep(self) -> None:
        """Keep the connection after a mail that the server has accepted, or close it after many."""
        client: Any = self.connection
        client.mails += 1
        if client.mails >= MOST_MAILS:
            self.close()
            return
        self.connection = None
        kept.keep(self._address, client)

    @property
    def _address(self) -> tuple[Any, ...]:
        return (
            *(self.host, self.port, self.username, self.password, self.timeout),
            *(self.use_tls, self.use_ssl, self.ssl_certfile, self.ssl_keyfile),
        )
