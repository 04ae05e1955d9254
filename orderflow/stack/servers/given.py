"""
Check of the user's own servers, before everything that needs them fails one by one.

A message names the setting, what was tried, the answer of the server or client library, and what to do.
"""

import re
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from orderflow.configuration import tls
from orderflow.stack.checkout.environment import Given
from orderflow.stack.problem import Problem

PATIENCE = 3.5
"""Seconds after which a silent server counts as unusable; all servers are tried at once."""

SECOND_PATIENCE = 1.5
"""The same if a connection to one of them has failed before, which took up to two seconds."""

CONNECT_PATIENCE = 2  # of one attempt: a name may have two addresses, and libpq tries both
DATABASE_PORTS = {"postgresql": 5432, "postgres": 5432, "pgsql": 5432}
REDIS_PORTS = {"redis": 6379, "rediss": 6379}
AMQP_PORTS = {"amqp": 5672, "amqps": 5671}
USUAL_PORTS = DATABASE_PORTS | REDIS_PORTS | AMQP_PORTS
KINDS = {
    "DATABASE_URL": tuple(DATABASE_PORTS),
    "BROKER_URL": (*REDIS_PORTS, *AMQP_PORTS),
    "REDIS_URL": tuple(REDIS_PORTS),
}
ADVICE = {
    "Correct its user and password.": (
        "authentication",
        "WRONGPASS",
        "NOAUTH",
        "ACCESS_REFUSED",
        "invalid username",
    ),
    "Correct the user, or create that role.": ("role ",),
    "Create what it names there, or correct the name.": ("does not exist", "vhost", "DB index"),
    "Correct the name of the host.": ("resolve", "Name or service", "nodename", "not known", "'idna'"),
    "Something else answers there: correct the host and port.": (
        "invalid response to SSL negotiation",
        "Protocol Error",
        "Server unexpectedly closed",
    ),
    "Agree with the server on TLS (`sslmode=`, rediss://, amqps://).": ("SSL", "TLS", "certificate"),
    "Free sessions there, or raise its limit.": ("too many", "remaining connection slots"),
    "Correct what follows the question mark.": (
        "query parameter",
        "connection option",
        "sslmode value",
        "keyword argument",
        "in connection URL",
        "could not convert",
        "definition of service",
    ),
}
"""What to do, by texts that occur in the answer."""

OTHERWISE = "Start that server, or correct the host and port."


def check(given: Given) -> None:
    """
    Try all servers that the user has named, at once.

    Raises:
        Problem: if any cannot be used; it names all of those.
    """
    if complaints := complaints_about(named(given)):
        raise Problem("\n".join(complaints))


def named(given: Given) -> dict[str, str]:
    """Return the settings that name servers. A broker that is also the shared state is returned once."""
    shared = given.redis if given.redis != given.broker else ""
    settings = {"DATABASE_URL": given.database, "BROKER_URL": given.broker, "REDIS_URL": shared}
    return {name: url for name, url in settings.items() if url}


def complaints_about(settings: dict[str, str], *, patience: float = PATIENCE) -> list[str]:
    """Return a message for each setting that names no usable server, within `patience` seconds."""
    found: dict[str, str] = {}

    def try_server(name: str, url: str) -> None:
        found[name] = complaint(name, url)

    # Name resolution has no timeout; a thread that hangs in it ends with the process.
    threads = {
        name: threading.Thread(target=try_server, args=(name, url), daemon=True)
        for name, url in settings.items()
    }
    _start_and_wait(list(threads.values()), patience)
    for name in settings.keys() - found.keys():
        found[name] = _complaint_text(name, settings[name], f"none within {patience:g} s")
    return [found[name] for name in settings if found[name]]


def complaint(name: str, url: str) -> str:
    """Return what is wrong with the server that a setting names, or an empty string."""
    if wrong := _misspelled(name, url):
        return f"{name} is not an address that can be used: {wrong}."
    if refused := _careless(name, url):
        return f"{name} is not an address that can be used: {refused}.\nCorrect what follows the question mark."
    try:
        _try(url)
    except Exception as error:  # psycopg, redis and amqp have no common base class; every error is reported
        return _complaint_text(name, url, masked(str(error).strip() or type(error).__name__, url))
    return ""


def masked(text: str, url: str) -> str:
    """
    Return the text with the password hidden where it appears as a password, not wherever the string occurs.
    """
    for password in filter(None, _passwords(url)):
        known = re.escape(password)
        text = re.sub(rf"(?<=:){known}(?=@)|(?<=password=){known}(?=[&\s'\"]|$)", "***", text)
    return text


def where(url: str) -> str:
    """Return host, port, user and database of a URL; never the password."""
    parts = urlsplit(url)
    port = USUAL_PORTS[parts.scheme] if parts.port is None else parts.port
    about = unquote(parts.path.lstrip("/"))
    user = f"user {unquote(parts.username)}, " if parts.username else ""
    what = {"amqp": "virtual host", "amqps": "virtual host"}.get(parts.scheme, "database")
    return f"{parts.hostname or 'localhost'}:{port} ({user}{what} {about or 'by default'})"


def _complaint_text(name: str, url: str, answer: str) -> str:
    return f"{name} does not work. Tried: {where(url)}. Answer: {answer}\n{_advice(answer)}"


def _advice(answer: str) -> str:
    return next((todo for todo, signs in ADVICE.items() if any(sign in answer for sign in signs)), OTHERWISE)


def _misspelled(name: str, url: str) -> str:
    """Return why the URL is malformed. The libraries' own messages may contain the password."""
    kinds = KINDS[name]
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - reading it checks it
    except ValueError as error:
        port_is_wrong = "ort" in str(error)
        if port_is_wrong:
            return "its port is not a number from 0 to 65535; in a password, write / # ? as %2F %23 %3F"
        return "its host cannot be read"
    if url != url.strip(" \t\r\n'\""):
        return "there are spaces or quotes around it"
    if parts.scheme not in kinds:
        begins = f"it begins with {parts.scheme}://" if "://" in url else "it has no scheme"
        return f"{begins}. Known are {', '.join(f'{kind}://' for kind in kinds)}"
    if not url.startswith(f"{parts.scheme}://"):
        return f"write {parts.scheme}:// in small letters, with both slashes"
    return _unreadable(url, parts) or _nameless(parts)


def _careless(name: str, url: str) -> str:
    """Return what the settings would refuse about TLS. For PostgreSQL this depends on the environment."""
    if urlsplit(url).scheme in DATABASE_PORTS:
        return ""
    return "; ".join(tls.complaints(url, broker=name == "BROKER_URL"))


def _unreadable(url: str, parts: SplitResult) -> str:
    if parts.netloc.count("@") > 1 or re.search(r"\s|%(?![0-9A-Fa-f]{2})|%00", url):
        return "write @, %, / and spaces in its user and password as %40, %25, %2F and %20"
    return ""


def _nameless(parts: SplitResult) -> str:
    """Return what is wrong with the database name. Clients accept names that kombu and Django refuse."""
    name = parts.path.strip("/")
    if parts.scheme in REDIS_PORTS and not re.fullmatch(r"[0-9]*", name, re.ASCII):
        return f"databases there are numbers from 0, and {unquote(name)} is none"
    if parts.scheme in DATABASE_PORTS and not name and "service=" not in parts.query:
        return "it names no database"
    return ""


def _passwords(url: str) -> Sequence[str]:
    parts = urlsplit(url)
    written = [parts.password or "", *parse_qs(parts.query).get("password", [])]
    return sorted({*written, *map(unquote, written)}, key=len, reverse=True)


def _try(url: str) -> None:
    scheme = urlsplit(url).scheme
    tries: tuple[tuple[Any, Callable[[str], None]], ...] = (
        (DATABASE_PORTS, _try_database),
        (REDIS_PORTS, _try_redis),
        (AMQP_PORTS, _try_amqp),
    )
    next(attempt for kinds, attempt in tries if scheme in kinds)(url)


def _try_database(url: str) -> None:
    import psycopg  # local imports, because `down`, `status` and `reset` run without the packages

    psycopg.connect(
        re.sub(r"^pgsql:", "postgresql:", url), connect_timeout=CONNECT_PATIENCE, application_name="orderflow"
    ).close()


def _try_redis(url: str) -> None:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    limits = {"socket_connect_timeout": CONNECT_PATIENCE, "socket_timeout": CONNECT_PATIENCE}
    server = redis.Redis.from_url(tls.verifying(url), **limits, retry=Retry(NoBackoff(), 0))
    try:
        server.ping()
    finally:
        server.close()


def _try_amqp(url: str) -> None:
    import kombu

    options = {"read_timeout": CONNECT_PATIENCE, "write_timeout": CONNECT_PATIENCE}
    plain, context = tls.for_amqp(url)
    with kombu.Connection(
        plain, ssl=context or False, connect_timeout=CONNECT_PATIENCE, transport_options=options
    ) as connection:
        connection.connect()


def _start_and_wait(threads: Sequence[threading.Thread], patience: float) -> None:
    end = time.monotonic() + patience
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
