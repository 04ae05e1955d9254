"""The two servers together: which of them are needed, and what their clients have to know."""

import dataclasses
import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from . import binaries
from .environment import Given
from .homes import ServersHome
from .postgres import Postgres
from .problem import Problem
from .units import Unit
from .valkey import BROKER_DATABASE, SHARED_DATABASE, Valkey

USUAL_PORTS = {"redis": 6379, "rediss": 6379, "amqp": 5672, "amqps": 5671}


@dataclasses.dataclass(frozen=True)
class Servers:
    """The private servers of one run; None where the user's is used instead."""

    given: Given
    postgres: Postgres | None
    valkey: Valkey | None

    @property
    def units(self) -> list[Unit]:
        return [server.unit() for server in (self.postgres, self.valkey) if server]

    @property
    def environment(self) -> dict[str, str]:
        """The addresses of all servers, private or given."""
        return {
            "DATABASE_URL": self.given.database or (self.postgres.url if self.postgres else ""),
            "BROKER_URL": self.given.broker or (self.valkey.url(BROKER_DATABASE) if self.valkey else ""),
            "REDIS_URL": self.given.redis or (self.valkey.url(SHARED_DATABASE) if self.valkey else ""),
        }

    @property
    def label(self) -> str:
        """What runs, for people."""
        names = [str(server.program) for server in (self.postgres, self.valkey) if server]
        names += ["your database"] if self.given.database else []
        names += ["your broker"] if self.given.broker else []
        return ", ".join(names)


def private(
    home: ServersHome,
    *,
    logs: Path,
    port: Mapping[str, int],
    secret: Mapping[str, str],
    given: Given,
    durable: bool = True,
) -> Servers:
    """
    Describe the servers that are needed beside the given ones. Nothing is started yet.

    Raises:
        Problem: if no program for one of them is found.
    """
    database = broker = None
    if given.needs_postgres:
        database = Postgres(
            home=home,
            program=binaries.postgres().for_account(home),
            log=logs / "postgres.log",
            port=port["postgres"],
            superuser_password=secret["postgres_superuser"],
            password=secret["postgres"],
            durable=durable,
        )
    if given.needs_valkey:
        broker = Valkey(
            home=home,
            program=binaries.valkey().for_account(home),
            log=logs / "valkey.log",
            port=port["valkey"],
            password=secret["valkey"],
            durable=durable,
        )
    return Servers(given, database, broker)


def check_given(given: Given) -> None:
    """
    Look whether the user's servers answer, before everything that needs them fails one by one.

    Raises:
        Problem: if one does not.
    """
    if given.database:
        import psycopg

        try:
            psycopg.connect(given.database, connect_timeout=5).close()
        except psycopg.Error as error:
            password = urlsplit(given.database).password or "\0"
            reason = str(error).strip().splitlines()[-1].replace(password, "***")
            raise Problem(f"DATABASE_URL names a database that cannot be used: {reason}") from error
    for variable, url in (("BROKER_URL", given.broker), ("REDIS_URL", given.redis)):
        if not url:
            continue
        parts = urlsplit(url)
        if parts.scheme not in USUAL_PORTS:
            raise Problem(
                f"{variable} begins with {parts.scheme}://. Known are redis://, rediss://, amqp:// and amqps://."
            )
        address = (parts.hostname or "localhost", parts.port or USUAL_PORTS[parts.scheme])
        try:
            socket.create_connection(address, timeout=5).close()
        except OSError as error:
            raise Problem(
                f"{variable} names {address[0]}:{address[1]}, which does not answer: {error.strerror or error}."
            ) from error
