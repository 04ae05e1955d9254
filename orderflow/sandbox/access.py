"""
Who may look into a sandbox server, tell it what to do and send mail: whoever has the run's password.

A page in a browser on this machine reaches the server too. It is kept out by the password, which it cannot
read, and by the `Host` header: a name of its own that it points at this machine (DNS rebinding) is refused.
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
"""The name that the servers expect with the password; they accept any."""

FILE = "password"
"""Where the password is, in the directory of the ledgers, readable by its owner."""

OWN_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - names them, listens nowhere


def password_in(directory: Path) -> str:
    """The password of the servers that keep their ledgers here; the first one of them makes it."""
    place = directory / FILE
    directory.mkdir(parents=True, exist_ok=True)
    if not place.exists():
        draft = directory / f"{FILE}.{os.getpid()}.{secrets.token_hex(4)}"
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(24))
        try:
            os.link(draft, place)  # whole, and only one of several servers succeeds
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return place.read_text().strip()


def authorization(password: str) -> str:
    """The header with which a client shows the password."""
    return "Basic " + base64.b64encode(f"{USER}:{password}".encode()).decode()


def email_url(password: str, address: str) -> str:
    """The `EMAIL_URL` with which a client logs in to the mail server at `address`, `host:port`."""
    return f"smtp://{USER}:{quote(password, safe='')}@{address}"


def keep_private(place: Path, text: str) -> None:
    """Write a file that only its owner may read; whoever reads it meanwhile finds the old or the new text."""
    draft = place.with_name(f"{place.name}.{os.getpid()}.{secrets.token_hex(4)}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    draft.replace(place)


class Access:
    """
    What one server asks of a request.

    Args:
        password: what control pages, all pages for people, and the mail server ask for.
        host: the address that the server listens on.
        names: more names that it is called by, such as a container's.
    """

    def __init__(self, password: str, *, host: str = "127.0.0.1", names: Iterable[str] = ()) -> None:
        self._expected = password.encode()
        own = {host.lower()} - {*EVERY_ADDRESS}
        self._names = OWN_NAMES | own | {name.lower() for name in names}

    def knows_host(self, headers: Message) -> bool:
        """Whether the request was meant for this server, by the one name that it gives."""
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
        """Whether this is the password; takes as long whether it is or not."""
        return hmac.compare_digest(shown, self._expected)
