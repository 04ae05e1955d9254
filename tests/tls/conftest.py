"""Real servers behind TLS, with certificates of a private authority."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode, urlsplit, urlunsplit

import pytest

from tests import processes, rabbitmq_hosts
from tests.chaos.conftest import AMQP_URL, NO_RABBITMQ
from tests.slow import but_first
from tests.tls.authority import Authority, Certificate
from tests.tls.terminator import Terminator

HOSTS = ("127.0.0.1", "localhost")
USUAL_PORTS = {"postgresql": 5432, "redis": 6379, "amqp": 5672}


@dataclasses.dataclass(frozen=True)
class Certificates:
    """The certificates of the servers of these tests, and their authority."""

    ours: Authority
    theirs: Authority
    server: dict[str, Certificate]
    client: Certificate
    stranger: Certificate


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    ours, theirs = Authority(folder, "ours"), Authority(folder, "theirs")
    return Certificates(
        ours=ours,
        theirs=theirs,
        server={
            "right": ours.sign("right", *HOSTS),
            "wrong authority": theirs.sign("right", *HOSTS),
            "wrong name": ours.sign("elsewhere", "elsewhere.example", "127.0.0.2"),
            "expired": ours.sign("expired", *HOSTS, expired=True),
        },
        client=ours.sign("client", client=True),
        stranger=theirs.sign("client", client=True),
    )


class Behind:
    """The servers of the running test, behind TLS."""

    def __init__(self, certificates: Certificates, broker: str) -> None:
        self._certificates = certificates
        self._environment = processes.environment()
        self._plain = {
            "DATABASE_URL": self._environment["DATABASE_URL"],
            "BROKER_URL": AMQP_URL if broker == "amqp" else self._environment["BROKER_URL"],
            "REDIS_URL": self._environment["REDIS_URL"],
        }
        self.terminators: list[Terminator] = []

    def show(self, shown: str, *, clients: bool = False) -> dict[str, int]:
        """Put TLS in front of each server with the certificate of that name; return the ports."""
        ports = {}
        for name, url in self._plain.items():
            parts = urlsplit(url)
            made = Terminator(
                (parts.hostname or "127.0.0.1", parts.port or USUAL_PORTS[parts.scheme]),
                self._certificates.server[shown],
                clients=self._certificates.ours if clients else None,
                postgres=name == "DATABASE_URL",
            )
            self.terminators.append(made)
            ports[name] = made.port
        return ports

    def environment(
        self, ports: dict[str, int], *, ca: Path | None, certificate: Certificate | None = None
    ) -> dict[str, str]:
        """Return settings for these servers; `ca` is trusted in addition to the system's authorities."""
        files = {"ssl_ca_certs": ca} if ca else {}
        of_libpq: dict[str, object] = {"sslmode": "verify-full"} | ({"sslrootcert": ca} if ca else {})
        if certificate:
            files |= {"ssl_certfile": certificate.file, "ssl_keyfile": certificate.key}
            of_libpq |= {"sslcert": certificate.file, "sslkey": certificate.key}
        found = {}
        for name, url in self._plain.items():
            parts = urlsplit(url)
            who = parts.netloc.rpartition("@")[0]
            here = f"{who}@127.0.0.1:{ports[name]}" if who else f"127.0.0.1:{ports[name]}"
            scheme = parts.scheme if name == "DATABASE_URL" else f"{parts.scheme}s"
            query = urlencode(of_libpq if name == "DATABASE_URL" else files, safe="/")
            found[name] = urlunsplit(parts._replace(scheme=scheme, netloc=here, query=query))
        return self._environment | {"DJANGO_SETTINGS_MODULE": "orderflow.settings"} | found


@pytest.fixture(params=but_first(["redis", "amqp"]))
def behind(request: pytest.FixtureRequest, certificates: Certificates) -> Iterator[Behind]:
    if request.param == "amqp" and not rabbitmq_hosts.answers(AMQP_URL):
        pytest.skip(NO_RABBITMQ)
    servers = Behind(certificates, request.param)
    yield servers
    for each in servers.terminators:
        each.close()
