"""The two private servers together: which of them are needed, and the addresses for their clients."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from orderflow.stack.checkout.environment import Given
from orderflow.stack.checkout.folders import ServersFolder
from orderflow.stack.servers import binaries
from orderflow.stack.servers.postgres import Postgres
from orderflow.stack.servers.valkey import BROKER_DATABASE, SHARED_DATABASE, Valkey
from orderflow.stack.supervision.process_specs import ProcessSpec


@dataclasses.dataclass(frozen=True)
class Servers:
    """The private servers of one run; None where the user's server is used instead."""

    given: Given
    postgres: Postgres | None
    valkey: Valkey | None

    @property
    def specs(self) -> list[ProcessSpec]:
        return [server.spec() for server in (self.postgres, self.valkey) if server]

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
        """The names of the servers, for display."""
        names = [str(server.program) for server in (self.postgres, self.valkey) if server]
        names += ["your database"] if self.given.database else []
        names += ["your broker"] if self.given.broker else []
        return ", ".join(names)


def private(
    folder: ServersFolder,
    *,
    logs: Path,
    port: Mapping[str, int],
    secret: Mapping[str, str],
    given: Given,
    durable: bool = True,
) -> Servers:
    """
    Describe the private servers that are needed beside the given ones. Nothing is started yet.

    Raises:
        Problem: if no program for one of them is found.
    """
    database = broker = None
    if given.needs_postgres:
        database = Postgres(
            folder=folder,
            program=binaries.postgres().for_account(folder),
            log=logs / "postgres.log",
            port=port["postgres"],
            superuser_password=secret["postgres_superuser"],
            password=secret["postgres"],
            durable=durable,
        )
    if given.needs_valkey:
        broker = Valkey(
            folder=folder,
            program=binaries.valkey().for_account(folder),
            log=logs / "valkey.log",
            port=port["valkey"],
            password=secret["valkey"],
            durable=durable,
        )
    return Servers(given, database, broker)
