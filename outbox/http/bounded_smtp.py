"""Clients of mail servers that read replies within limits. Workers for e-mails need no other module here."""

from __future__ import annotations

import io
import smtplib
import time
from typing import Any

from outbox.http.reader import Reader

LARGEST_DIALOGUE = 256 * 1024
"""Maximum bytes of a mail server's replies during one mail. Most servers send a few hundred."""

DIALOGUE = 2.0
"""The time limit for all replies of a mail server together, as a multiple of the timeout for one reply."""


class _Bounded:
    """The part of an SMTP client that reads replies."""

    sock: Any
    file: Any
    timeout: Any
    mails = 0
    """How many mails were sent through this connection."""

    def renew(self) -> None:
        """Begin with new limits, before the connection is used again. Unread replies are dropped."""
        if self.file is not None:
            self.file.close()
            self.file = None
        vars(self).pop("_ends", None)

    def getreply(self) -> tuple[int, bytes]:
        if self.file is None:
            if not hasattr(self, "_ends"):
                self._ends = time.monotonic() + DIALOGUE * self.timeout
            left = max(0.0, self._ends - time.monotonic())
            self.file = io.BufferedReader(Reader(self.sock, seconds=left, most=LARGEST_DIALOGUE))
        return super().getreply()  # type: ignore[misc, no-any-return]


class SMTP(_Bounded, smtplib.SMTP):
    """An SMTP client with limited replies."""


class SecureSMTP(_Bounded, smtplib.SMTP_SSL):
    """The same over TLS."""
