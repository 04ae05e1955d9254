"""E-mail through Django's mail backend, with text and HTML."""

from __future__ import annotations

import smtplib
import socket
from collections.abc import Sequence
from email.utils import parseaddr

from django.conf import settings
from django.core.mail import EmailMultiAlternatives

from notifications.models import Notification
from notifications.ports import OutcomeUnknown, RecipientDeferred, RecipientRefused, RequestRefused
from outbox.resilience import Outage, Transient, breaker

SERVICE_NOT_AVAILABLE = 421


class EmailChannel:
    """`notifications.ports.Channel` over SMTP. Sent again, a mail has the same Message-ID."""

    def send(self, notification: Notification) -> str:
        """See `notifications.ports.Channel.send`."""
        mail = compose(notification)
        with breaker("email").guard():
            deferred = _submit(mail)
        if deferred:
            raise deferred
        return str(mail.extra_headers["Message-ID"])

    def find(self, notification: Notification) -> Sequence[str]:
        """Nothing: a mail server cannot be asked what it has taken."""
        return []


def compose(notification: Notification) -> EmailMultiAlternatives:
    """The mail, the same at every try."""
    mail = EmailMultiAlternatives(
        subject=notification.subject,
        body=notification.text,
        from_email=settings.DEFAULT_FROM_EMAIL,
        to=[notification.recipient],
        headers={
            "Message-ID": message_id_of(notification),
            "Auto-Submitted": "auto-generated",
            "X-Order-Number": notification.order_number,
            "X-Entity-Ref-ID": f"{notification.order_number}-{notification.template}",
        },
    )
    if notification.html:
        mail.attach_alternative(notification.html, "text/html")
    return mail


def message_id_of(notification: Notification) -> str:
    """The same at every try; short enough not to be folded, which some readers take for another id."""
    domain = parseaddr(settings.DEFAULT_FROM_EMAIL)[1].rpartition("@")[2] or "localhost"
    return f"<{notification.pk}.{notification.message_id.hex}@{domain}>"


def _submit(mail: EmailMultiAlternatives) -> RecipientDeferred | None:
    """Submit the mail; a delay of its recipient is returned, since it says nothing about the server."""
    try:
        mail.send()
    except smtplib.SMTPRecipientsRefused as refused:
        code, reason = next(iter(refused.recipients.values()))
        if code == SERVICE_NOT_AVAILABLE:
            raise Outage(f"the mail server answered {_said(code, reason)}") from refused
        if code < 500:
            return RecipientDeferred(f"the mail server answered {_said(code, reason)}")
        raise RecipientRefused(f"the mail server answered {_said(code, reason)}") from refused
    except smtplib.SMTPConnectError as failure:
        raise Outage(f"the mail server answered {_said(failure.smtp_code, failure.smtp_error)}") from failure
    except smtplib.SMTPAuthenticationError as failure:
        raise RequestRefused("the mail server does not take our credentials") from failure
    except smtplib.SMTPResponseException as failure:
        answer = f"the mail server answered {_said(failure.smtp_code, failure.smtp_error)}"
        if failure.smtp_code == SERVICE_NOT_AVAILABLE:
            raise Outage(answer) from failure
        if 400 <= failure.smtp_code < 500:
            raise Transient(answer) from failure
        if failure.smtp_code >= 500:
            raise RecipientRefused(answer) from failure
        raise OutcomeUnknown(answer) from failure
    except (ConnectionRefusedError, socket.gaierror) as failure:
        raise Outage("the mail server does not answer") from failure
    except (smtplib.SMTPException, OSError) as failure:
        raise OutcomeUnknown(f"the connection to the mail server broke: {type(failure).__name__}") from failure
    except ValueError as malformed:
        raise RecipientRefused(f"this is no address mail can go to: {malformed}") from malformed
    return None


def _said(code: int, reason: bytes | str) -> str:
    return f"{code} {reason.decode(errors='replace') if isinstance(reason, bytes) else reason}"
