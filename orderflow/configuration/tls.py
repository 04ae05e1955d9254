"""
TLS of the servers that settings name: which options their URLs may have, and which are refused.

`rediss://` and `amqps://` verify the server's certificate and its name. Both accept a private authority
(`ssl_ca_certs`) and a client's certificate (`ssl_certfile`, `ssl_keyfile`) in the URL; no option turns
verification off. PostgreSQL uses libpq's options: `sslmode=verify-full`, `sslrootcert`, `sslcert`, `sslkey`.
Standard library only: `orderflow.stack` uses it before there are any settings.
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
"""The options that could turn verification off, and the values that leave it on."""

BROKER_OPTIONS = ("login_method",)
"""The options of a broker's URL besides TLS. kombu takes any option as one of its own arguments: `ssl=1`
encrypts but verifies nothing."""

DATABASE_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
SYSTEM = "system"
"""libpq's name for the authorities that the system trusts, used instead of a file."""

VERIFYING_MODES = ("verify-full",)
PLAIN_MODES = ("disable",)


def verifying(url: str) -> str:
    """
    Return the URL with explicit verification options, as kombu and redis-py both understand them.

    By default kombu verifies nothing for `rediss://`. A malformed URL is returned unchanged; `complaints`
    reports it.
    """
    return ";".join(map(_verifying, url.split(";")))


def options(url: str) -> dict[str, Any]:
    """Return Celery's `broker_use_ssl` for the first host in the URL; empty without TLS."""
    parts = _read(url.split(";")[0])
    if parts is None or parts.scheme not in SECURE:
        return {}
    asked = dict(parse_qsl(parts.query))
    return {name: asked[name] for name in FILES if name in asked} | {"ssl_cert_reqs": ssl.CERT_REQUIRED}


def for_amqp(url: str) -> tuple[str, dict[str, Any]]:
    """Return the URL without TLS options, and those options in the form of `kombu.Connection(…, ssl=…)`."""
    parts = urlsplit(url)
    if parts.scheme not in SECURE:
        return url, {}
    left = [(name, value) for name, value in parse_qsl(parts.query) if not name.startswith("ssl")]
    context = {name.removeprefix("ssl_"): value for name, value in options(url).items()}
    return urlunsplit(parts._replace(query=urlencode(left))), {**context, "server_hostname": parts.hostname}


def complaints(url: str, *, broker: bool) -> Iterator[str]:
    """Return what is wrong with the TLS options in the URL of a broker or of Redis. Contains no password."""
    for one in url.split(";"):
        parts = _read(one)
        if parts is None:
            continue  # not a TLS option
        asked = parse_qsl(parts.query, keep_blank_values=True)
        about = [(name, value) for name, value in asked if name.startswith("ssl")]
        if about and parts.scheme not in SECURE:
            yield f"{about[0][0]} is not allowed in {parts.scheme}://: for TLS use {parts.scheme}s://"
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
    Return what is wrong with the TLS of a Django `DATABASES` entry. `strict`: a server elsewhere must either be
    verified or be declared to be without TLS. `default_mode` is libpq's mode if the address sets none.
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
        is_explicit = "sslmode" in chosen
        yield f"sslmode={mode}{'' if is_explicit else ', which is the default,'} does not verify the server"


def is_elsewhere(database: Mapping[str, Any]) -> bool:
    """
    Whether a Django `DATABASES` entry leads to another machine. The host of a libpq service is unknown here.
    """
    chosen = database.get("OPTIONS") or {}
    hosts = [database.get("HOST"), chosen.get("host"), chosen.get("hostaddr")]
    return bool(chosen.get("service")) or not is_local(",".join(str(host) for host in hosts if host))


def is_plain(url: str) -> bool:
    """Whether any traffic for this URL leaves the machine without TLS."""
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
    # Paths stay readable: both libraries decode either form.
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
