"""Every connection of the project verifies the server's certificate: its authority, its name and its dates."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT, stack
from tests.slow import but_first

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(120)]

REFUSED = ("certificate verify failed", "CERTIFICATE_VERIFY_FAILED", "server certificate for", "does not match")
NO_ROOTS = "root certificate file"
"""libpq refuses to verify without an authority, before it connects."""


def connect(environment):
    """Return the error of each way of connecting; empty if it succeeded."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.tls.every_way"],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.slow
def test_with_the_right_authority_everything_connects(behind, certificates):
    went = connect(behind.environment(behind.show("right"), ca=certificates.ours.file))

    assert {name: error for name, error in went.items() if error} == {}
    assert all(terminator.handshakes for terminator in behind.terminators)


@pytest.mark.parametrize("shown", but_first(["wrong authority", "wrong name", "expired"]))
def test_a_server_that_shows_a_wrong_certificate_is_refused_everywhere(behind, certificates, shown):
    went = connect(behind.environment(behind.show(shown), ca=certificates.ours.file))

    assert {name: error for name, error in went.items() if not any(sign in error for sign in REFUSED)} == {}


@pytest.mark.slow
def test_urls_without_an_authority_trust_only_those_of_the_system(behind):
    went = connect(behind.environment(behind.show("right"), ca=None))

    assert {
        name: error for name, error in went.items() if not any(s in error for s in (*REFUSED, NO_ROOTS))
    } == {}


@pytest.mark.slow
def test_clients_show_their_certificate(behind, certificates):
    ports = behind.show("right", clients=True)
    ours = certificates.ours.file

    shown = connect(behind.environment(ports, ca=ours, certificate=certificates.client))
    assert {name: error for name, error in shown.items() if error} == {}
    foreign = connect(behind.environment(ports, ca=ours, certificate=certificates.stranger))
    assert [name for name, error in foreign.items() if not error] == []


@pytest.mark.slow
def test_a_worker_works_over_tls_and_one_without_verification_does_not_start(
    behind, certificates, tmp_path: Path
):
    environment = behind.environment(behind.show("right"), ca=certificates.ours.file)
    servers = {name: environment[name] for name in ("DATABASE_URL", "BROKER_URL", "REDIS_URL")}
    with stack(tmp_path) as started:
        started.worker("tls", "orders", pool="solo", **servers).wait_until_ready()

        unverified = f"{servers['BROKER_URL']}&ssl_cert_reqs=none"
        careless = started.worker("careless", "orders", pool="solo", **servers | {"BROKER_URL": unverified})
        careless._popen.wait(60)
        assert "ssl_cert_reqs=none does not verify the server" in careless.output()
        assert careless.exit_code not in (0, None)
