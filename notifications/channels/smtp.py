"""Django's mail backend with limits for the replies of mail servers."""

from __future__ import annotations

import smtplib

from django.core.mail.backends.smtp import EmailBackend

from outbox.http import bounded


class Backend(EmailBackend):
    """See `outbox.http.bounded`."""

    @property
    def connection_class(self) -> type[smtplib.SMTP]:
        """The SMTP client class."""
        return bounded.SecureSMTP if self.use_ssl else bounded.SMTP
