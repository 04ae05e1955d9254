"""Django's mail backend, over connections to mail servers whose replies come to an end."""

from __future__ import annotations

import smtplib

from django.core.mail.backends.smtp import EmailBackend

from outbox.http import bounded


class Backend(EmailBackend):
    """See `outbox.http.bounded`."""

    @property
    def connection_class(self) -> type[smtplib.SMTP]:
        """The client to connect with."""
        return bounded.SecureSMTP if self.use_ssl else bounded.SMTP
