"""E-mail through Django's mail backend, with text and HTML."""

from __future__ import annotations

import binascii
import contextlib
import datetime as dt
import re
import smtplib
import ssl
from collections.abc import Sequence
from email.utils import parseaddr

import idna
from django.conf import settings
from django.core.mail import EmailMultiAlternatives, get_connection
from django.core.mail.backends.base import BaseEmailBackend
from django.core.mail.message import sanitize_address

from notifications.channels import smtp
from notifications.models import Notification
from notifications.ports import OutcomeUnknown, RecipientDeferred, RecipientRefused, RequestRefused
from outbox.resilience import CredentialsRefused, Outage, SettingsRefused, Transient, breaker

SERVICE_NOT_AVAILABLE = 421

UNAUTHORISED = frozenset({530, 534, 535, 538})
"""Replies that ask for other credentials, to whatever command (RFC 4954, section 6)."""

TOO_LARGE = 552
"""A reply to MAIL FROM that concerns the size of the mail, which is declared with it (RFC 1870)."""

QUOTED_PAIR = re.compile(r"\\(.)")
"""An escaped character of a quoted mailbox (RFC 5321, section 4.1.2)."""

PLAIN = re.compile(r"[A-Za-z0-9_+-]+(\.[A-Za-z0-9_+-]+)*@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
"""Most addresses: letters, digits and single dots. Such an address can be read in one way only."""

OF_SENDER = re.compile(
    r"\b5\.(1\.[78]|7\.(26|27|54|57|60|64))\b|\bsender (address|verify|is not)\b|\bnot owned by user\b"
    r"|\bsend ?as ?denied\b|identities failed the check|\bunable to relay\b|\brcpthosts\b"
    r"|\brelay(ing)? (access )?(is )?(denied|not (permitted|allowed)|prohibited)",
    re.IGNORECASE,
)
"""Texts with which Postfix, Exim, Sendmail, qmail, Exchange and SES refuse a sender or refuse to relay, and
codes of RFC 3463 and 7372. Many servers send them in reply to the recipient."""


class EmailChannel:
    """`notifications.ports.ChannelAdapter` over SMTP. A mail that is sent again has the same Message-ID."""

    can_look_up = False

    def send(self, notification: Notification) -> str:
        """See `notifications.ports.ChannelAdapter.send`."""
        mail = compose(notification)
        with breaker("email").guard():
            deferred = _submit(mail)
        if deferred:
            raise deferred
        return str(mail.extra_headers["Message-ID"])

    def find(self, notification: Notification, *, since: dt.datetime) -> Sequence[str]:
        """Return nothing: a mail server has no look-up."""
        return []


UNPARSABLE = (ValueError, RecursionError, IndexError, AttributeError, TypeError)
"""What Python's parser of addresses raises for malformed ones, such as `"@example.com` or `user@[`."""


def ascii_address(address: str) -> str:
    """
    Return the address in ASCII, its domain encoded with IDNA 2008.

    Python and Django follow IDNA 2003, which maps domains with `ß` or `ς` to other domains and drops joiners.

    Raises:
        RecipientRefused: if there is no such form, or if the mail could go to somebody else.
    """
    if PLAIN.fullmatch(address):
        return address
    mailbox, at, domain = address.rpartition("@")
    try:
        if not mailbox.isascii():
            raise RecipientRefused("this address needs SMTPUTF8, which is not supported")
        ascii_domain = domain if domain.isascii() else idna.encode(domain, uts46=True).decode()
    except idna.IDNAError as invalid:
        raise RecipientRefused("the domain of this address is not valid (IDNA 2008)") from invalid
    _check_mailbox(mailbox, at + ascii_domain)
    return mailbox + at + ascii_domain


def _check_mailbox(mailbox: str, domain: str) -> None:
    """
    Check that Django does not change the mailbox, except for unnecessary quotes.

    Django parses addresses again and decodes encoded words (RFC 2047): the mailbox `=?utf-8?q?eve?=` would
    become `eve`.
    """
    bare = QUOTED_PAIR.sub(r"\1", mailbox[1:-1]) if mailbox.startswith('"') else mailbox
    try:
        goes_to = sanitize_address(mailbox + domain, "utf-8")
    except UNPARSABLE as malformed:
        raise RecipientRefused("this is not a valid address") from malformed
    if not bare or goes_to not in (mailbox + domain, bare + domain):
        raise RecipientRefused("the mailbox of this address can be read in more than one way")


def compose(notification: Notification) -> EmailMultiAlternatives:
    """Return the mail; it is the same at every try."""
    mail = EmailMultiAlternatives(
        subject=notification.subject,
        body=notification.text,
        from_email=settings.DEFAULT_FROM_EMAIL,
        to=[ascii_address(notification.recipient)],
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
    """Return the Message-ID: the same at every try, and too short to be folded, which confuses some clients."""
    domain = parseaddr(settings.DEFAULT_FROM_EMAIL)[1].rpartition("@")[2] or "localhost"
    return f"<{notification.pk}.{notification.message_id.hex}@{domain}>"


def _submit(mail: EmailMultiAlternatives) -> RecipientDeferred | None:
    """Submit the mail. A deferred recipient is returned, not raised: the breaker must not count it."""
    mail.connection = _opened()
    try:
        mail.send()
    except smtplib.SMTPRecipientsRefused as refused:
        recipient, (code, reason) = next(iter(refused.recipients.items()))
        _check_of_all(code, reason, recipient, refused)
        if code < 500:
            return RecipientDeferred(f"the mail server answered {_reply(code, reason)}")
        raise RecipientRefused(f"the mail server answered {_reply(code, reason)}") from refused
    except smtplib.SMTPSenderRefused as refused:
        answer = f"the mail server answered {_reply(refused.smtp_code, refused.smtp_error)}"
        _check_of_all(refused.smtp_code, refused.smtp_error, mail.to[0], refused)
        if refused.smtp_code == TOO_LARGE:
            raise RequestRefused(answer) from refused
        raise _sender_refused(refused.smtp_code) if refused.smtp_code >= 500 else Outage(answer) from refused
    except smtplib.SMTPResponseException as failure:
        answer = f"the mail server answered {_reply(failure.smtp_code, failure.smtp_error)}"
        _check_of_all(failure.smtp_code, failure.smtp_error, mail.to[0], failure)
        if 400 <= failure.smtp_code < 500:
            raise Transient(answer) from failure
        if failure.smtp_code >= 500:
            raise RecipientRefused(answer) from failure
        raise OutcomeUnknown(answer) from failure
    except (smtplib.SMTPException, OSError) as failure:
        raise OutcomeUnknown(f"the connection to the mail server broke: {type(failure).__name__}") from failure
    except binascii.Error as unreadable:  # a malformed challenge during the login
        raise OutcomeUnknown("the mail server's answer cannot be read") from unreadable
    except ValueError as malformed:
        raise RecipientRefused(f"this is not a valid address: {malformed}") from malformed
    else:
        if isinstance(mail.connection, smtp.Backend):
            mail.connection.keep()
    finally:
        with contextlib.suppress(smtplib.SMTPException, OSError):
            mail.connection.close()
    return None


def _opened() -> BaseEmailBackend:
    """
    Open a connection to the mail server. Errors here do not depend on the mail.

    Raises:
        outbox.resilience.Outage: if there is no connection, or the server refuses our settings.
    """
    if "@" not in parseaddr(settings.DEFAULT_FROM_EMAIL)[1]:
        raise SettingsRefused("our sender is not a valid address", settings="DEFAULT_FROM_EMAIL")
    server: BaseEmailBackend = get_connection()
    try:
        server.open()
    except smtplib.SMTPNotSupportedError as failure:
        raise _refused("that it does not support AUTH or STARTTLS") from failure
    except smtplib.SMTPResponseException as failure:
        if failure.smtp_code in UNAUTHORISED or (
            isinstance(failure, smtplib.SMTPAuthenticationError) and failure.smtp_code >= 500
        ):
            raise _refused(failure.smtp_code) from failure
        raise Outage(f"the mail server answered {_reply(failure.smtp_code, failure.smtp_error)}") from failure
    except ssl.SSLCertVerificationError as failure:
        raise Outage(f"the mail server's certificate is not valid: {failure.verify_message}") from failure
    except (smtplib.SMTPException, OSError) as failure:
        raise Outage(f"the mail server does not answer: {type(failure).__name__}") from failure
    except UnicodeError as unusable:
        what = "the mail server's name or our account name cannot be written in ASCII, so nothing was sent"
        raise SettingsRefused(what, settings="EMAIL_URL") from unusable
    return server


def _check_of_all(code: int, reason: bytes | str, recipient: str, failure: Exception) -> None:
    """
    Check that a reply concerns this mail, not all mails.

    Raises:
        outbox.resilience.Outage: if the server closes, or accepts nothing from us.
    """
    if code == SERVICE_NOT_AVAILABLE:
        raise Outage(f"the mail server answered {_reply(code, reason)}") from failure
    if code in UNAUTHORISED:
        raise _refused(code) from failure
    if code >= 500 and OF_SENDER.search(_without(recipient, _text(reason))):
        raise _sender_refused(code) from failure


def _without(recipient: str, reply: str) -> str:
    """A reply without the recipient, whose address must not be mistaken for a refusal of our sender."""
    for part in (recipient, *recipient.rsplit("@", 1)):
        reply = re.sub(rf"(?<!\w){re.escape(part)}(?!\w)", " ", reply, flags=re.IGNORECASE)
    return re.sub(r"<[^>]*>", " ", reply)


def _sender_refused(code: int) -> SettingsRefused:
    return SettingsRefused(
        f"the mail server rejects our sender (it answered {code})",
        settings="DEFAULT_FROM_EMAIL, or the account in EMAIL_URL",
    )


def _refused(answer: object) -> CredentialsRefused:
    return CredentialsRefused("the mail server", settings="EMAIL_URL", answer=answer)


def _reply(code: int, reason: bytes | str) -> str:
    return f"{code} {_text(reason)}"


def _text(reason: bytes | str) -> str:
    return reason.decode(errors="replace") if isinstance(reason, bytes) else reason
