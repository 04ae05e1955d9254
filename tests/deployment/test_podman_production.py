"""Production with a real engine: it starts as documented, and responds only over TLS."""

from __future__ import annotations

import shutil

import pytest

from tests.deployment import podman
from tests.deployment.compose import BASE, OTHERS, together
from tests.tls.authority import Authority

PRODUCTION = OTHERS[1]

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(2400)]


@pytest.fixture(scope="module", autouse=True)
def _an_engine():
    if reason := podman.why_not():
        pytest.skip(reason)


@pytest.fixture(scope="module")
def production(tmp_path_factory):
    """Production, with a certificate; its providers' hosts do not exist."""
    folder = tmp_path_factory.mktemp("production")
    secrets = folder / "secrets"
    podman.make_secrets(secrets)
    authority = Authority(folder, "some")
    certificate = authority.sign("front", "orders.example.com")
    shutil.copy(certificate.file, secrets / "tls_certificate")
    shutil.copy(certificate.key, secrets / "tls_key")
    (secrets / "stripe_api_key").write_text("sk_live_none\n")
    podman.make_secrets(secrets)
    settings = podman.example() | {"STRIPE_API_BASE": "https://payments.invalid"}
    project = podman.Project(together(BASE, PRODUCTION), folder=secrets, settings=settings)
    project.build()
    try:
        project.up()
        yield project, authority
    finally:
        project.down()


def test_production_starts_from_the_example_and_responds_only_over_tls(production):
    project, authority = production
    asks = f"""
import http.client, socket, ssl
trust = ssl.create_default_context(cadata={authority.file.read_text()!r})
plain = socket.create_connection(("front", 8443), timeout=10)
with trust.wrap_socket(plain, server_hostname="orders.example.com") as link:
    link.sendall(b"GET /api/v1/orders HTTP/1.0\\r\\nHost: orders.example.com\\r\\n\\r\\n")
    print(link.recv(12).decode())
for path in ("/admin/", "/api/v1/orders"):
    asking = http.client.HTTPConnection("front", 8080, timeout=10)
    asking.request("GET", path, headers={{"Host": "orders.example.com"}})
    answer = asking.getresponse()
    print(answer.status, answer.headers["Location"])
"""
    output = project.run("flower", "python", "-", typed=asks).splitlines()
    assert output == ["HTTP/1.1 401", "308 https://orders.example.com/admin/", "403 None"]


def test_production_passes_the_checks_of_a_deployment(production):
    project, _ = production
    project.run("worker-jobs", "python", "manage.py", "check", "--deploy", "--fail-level", "ERROR")
