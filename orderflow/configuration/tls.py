"""
TLS of the servers that settings name: what their URLs may say of it, and what is refused.

`rediss://` and `amqps://` verify the server's certificate and its name. Both take a private authority
(`ssl_ca_certs`) and a client's certificate (`ssl_certfile`, `ssl_keyfile`) in the URL; nothing in it turns
verification off. PostgreSQL takes libpq's options: `sslmode=verify-full`, `sslrootcert`, `sslcert`, `sslkey`.
Standard library only: `orderflow.stack` reads the same before there are any settings.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

SECURE = ("rediss", "amqps")
FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
VERIFIES = {
    "ssl_cert_reqs": ("required", "CERT_REQUIRED"),
    "ssl_check_hostname": ("true", "True", "1", "yes"),
}
"""The options that could turn verification off, and the values that do not."""

BROKER_OPTIONS = ("login_method",)
"""What a broker's URL may ask for besides TLS. kombu takes any option for an argument of its own: `ssl=1`
encrypts and verifies nothing."""

DATABASE_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
SYSTEM = "system"
"""libpq's name for the authorities that the system trusts, instead of a file."""

VERIFYING_MODES = ("verify-full",)
PLAIN_MODES = ("disable",)


def verifying(url: str) -> str:
    """
    Return the URL with verification spelled out, as kombu and redis-py both read it.

    kombu verifies nothing for `rediss://` unless told to. What cannot be read is left as it is, for
    `complaints` to name.
    """
    return ";".join(map(_verifying, url.split(";")))


def options(url: str) -> dict[str, Any]:
    """Return what Celery calls `broker_use_ssl`, of the first host that the URL names; empty without TLS."""
    parts = _read(url.split(";")[0])
    if parts is None or parts.scheme not in SECURE:
        return {}
    asked = dict(parse_qsl(parts.query))
    return {name: asked[name] for name in FILES if name in asked} | {"ssl_cert_reqs": ssl.CERT_REQUIRED}


def for_amqp(url: str) -> tuple[str, dict[str, Any]]:
    """Return the URL without what it says of TLS, and the same as `kombu.Connection(…, ssl=…)` wants it."""
    parts = urlsplit(url)
    if parts.scheme not in SECURE:
        return url, {}
    left = [(name, value) for name, value in parse_qsl(parts.query) if not name.startswith("ssl")]
    context = {name.removeprefix("ssl_"): value for name, value in options(url).items()}
    return urlunsplit(parts._replace(query=urlencode(left))), {**context, "server_hostname": parts.hostname}


def complaints(url: str, *, broker: bool) -> Iterator[str]:
    """What is wrong with what the URL of a broker or of Redis says of TLS. Contains no password."""
    for one in url.split(";"):
        parts = _read(one)
        if parts is None:
            continue  # not a question of TLS
        asked = parse_qsl(parts.query, keep_blank_values=True)
        about = [(name, value) for name, value in asked if name.startswith("ssl")]
        if about and parts.scheme not in SECURE:
            yield f"{about[0][0]} has no place in {parts.scheme}://: TLS begins with {parts.scheme}s://"
            continue
        for name, value in about:
            if name in VERIFIES:
                if value not in VERIFIES[name]:
                    yield f"{name}={value} does not verify the server"
            elif name not in FILES:
                yield f"{name} is not known; write {', '.join(FILES)}"
            elif not _is_readable(value):
                yield f"{name} names {value or 'nothing'}, which cannot be read"
        names = {name for name, _ in asked}
        if "ssl_keyfile" in names and "ssl_certfile" not in names:
            yield "ssl_keyfile needs ssl_certfile"
        if broker:
            for name in sorted(names - {name for name, _ in about} - set(BROKER_OPTIONS)):
                yield f"{name} is not known in the address of a broker"


def database_complaints(database: Mapping[str, Any], *, default_mode: str, strict: bool) -> Iterator[str]:
    """
    What is wrong with the TLS of Django's `DATABASES` entry. `strict`: a server elsewhere is either verified or
    declared to be without TLS. `default_mode` is what libpq does when the address says nothing.
    """
    chosen = database.get("OPTIONS") or {}
    for name in DATABASE_FILES:
        value = str(chosen.get(name, ""))
        if value and value != SYSTEM and not _is_readable(value):
            yield f"{name} names {value}, which cannot be read"
    if not (strict and is_elsewhere(database)):
        return
    if chosen.get("sslrootcert") == SYSTEM:
        default_mode = "verify-full"
    mode = str(chosen.get("sslmode") or default_mode)
    if mode not in (*VERIFYING_MODES, *PLAIN_MODES):
        said = "sslmode" in chosen
        yield f"sslmode={mode}{'' if said else ', which is the default,'} does not verify the server"


def is_elsewhere(database: Mapping[str, Any]) -> bool:
    """Whether Django's `DATABASES` entry leads to another machine. A service's host is not known here."""
    chosen = database.get("OPTIONS") or {}
    hosts = [database.get("HOST"), chosen.get("host"), chosen.get("hostaddr")]
    return bool(chosen.get("service")) or not is_local(",".join(str(host) for host in hosts if host))


def is_plain(url: str) -> bool:
    """Whether some of this URL's traffic leaves the machine without TLS."""
    found = filter(None, map(_read, url.split(";")))
    return any(parts.scheme not in (*SECURE, "https") and not is_local(parts.hostname or "") for parts in found)


def is_local(hosts: str) -> bool:
    """Whether all of these hosts, separated by commas, are this machine: loopback, or a socket's folder."""
    return all(map(_is_this_machine, hosts.split(",")))


def _is_this_machine(host: str) -> bool:
    if host in ("", "localhost") or host.startswith(("/", "@")):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _verifying(url: str) -> str:
    parts = _read(url)
    if parts is None or parts.scheme not in SECURE:
        return url
    asked = parse_qsl(parts.query, keep_blank_values=True)
    spelled = [(name, VERIFIES[name][0] if value in VERIFIES.get(name, ()) else value) for name, value in asked]
    if parts.scheme == "rediss" and not any(name == "ssl_cert_reqs" for name, _ in asked):
        spelled.append(("ssl_cert_reqs", "required"))
    # Paths stay readable: what reads them decodes either form.
    return urlunsplit(parts._replace(query=urlencode(spelled, safe="/:")))


def _read(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - reading it checks it
    except ValueError:
        return None
    return parts


def _is_readable(path: str) -> bool:
    try:
        with Path(path).open("rb"):
            return True
    except OSError:
        return False
