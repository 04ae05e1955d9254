"""
Access to a sandbox server: its pages, its control API and its mail port require the run's password.

A page in a browser on this machine can send requests to the server too. It is kept out by the password, which
it cannot read, and by the `Host` header: a foreign name that resolves to this machine (DNS rebinding) is
refused.
"""

from __future__ import annotations

import base64
import hmac
import os
import secrets
from collections.abc import Iterable
from email.message import Message
from pathlib import Path
from urllib.parse import quote, urlsplit

USER = "sandbox"
"""The user name that clients send with the password; the servers accept any."""

FILE = "password"
"""The file with the password, in the directory of the ledgers, readable by its owner."""

OWN_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - names them, listens nowhere


def password_in(directory: Path) -> str:
    """Return the password of the servers with ledgers in this directory; the first server generates it."""
    place = directory / FILE
    directory.mkdir(parents=True, exist_ok=True)
    if not place.exists():
        draft = directory / f"{FILE}.{os.getpid()}.{secrets.token_hex(4)}"
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(24))
        try:
            os.link(draft, place)  # atomic: only one of several servers succeeds
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return place.read_text().strip()


def authorization(password: str) -> str:
    """Return the HTTP header that carries the password."""
    return "Basic " + base64.b64encode(f"{USER}:{password}".encode()).decode()


def email_url(password: str, address: str) -> str:
    """Return the `EMAIL_URL` for the mail server at `address` (`host:port`), with the login."""
    return f"smtp://{USER}:{quote(password, safe='')}@{address}"


def keep_private(place: Path, text: str) -> None:
    """Write a file that only its owner may read, atomically."""
    draft = place.with_name(f"{place.name}.{os.getpid()}.{secrets.token_hex(4)}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    draft.replace(place)


class Access:
    """
    The access rules of one server.

    Args:
        password: required by the control API, by pages for people, and by the mail server.
        host: the address that the server listens on.
        names: further host names of the server, such as a container's.
    """

    def __init__(self, password: str, *, host: str = "127.0.0.1", names: Iterable[str] = ()) -> None:
        self._expected = password.encode()
        own = {host.lower()} - {*EVERY_ADDRESS}
        self._names = OWN_NAMES | own | {name.lower() for name in names}

    def knows_host(self, headers: Message) -> bool:
        """Whether the request has a single Host header, and it names this server."""
        given = headers.get_all("Host") or []
        if len(given) != 1:
            return False
        try:
            return (urlsplit(f"//{given[0].strip()}").hostname or "") in self._names
        except ValueError:
            return False

    def knows_password(self, headers: Message) -> bool:
        """Whether the request carries the password."""
        kind, _, encoded = headers.get("Authorization", "").partition(" ")
        try:
            shown = base64.b64decode(encoded.strip(), validate=True).partition(b":")[2]
        except ValueError:
            return False
        return kind.lower() == "basic" and self.is_password(shown)

    def is_password(self, shown: bytes) -> bool:
        """Compare with the password in constant time."""
        return hmac.compare_digest(shown, self._expected)
