"""The audit of pinned packages fails only for advisories, and never reports unchecked packages as clean."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from orderflow.stack import ports
from tests.processes import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

ADVISORY = {
    "id": "GHSA-test-test-test",
    "aliases": ["CVE-2099-0001"],
    "summary": "tests",
    "modified": "2099-01-01T00:00:00Z",
    "affected": [
        {
            "package": {"name": "kombu", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99"}]}],
        }
    ],
}


@pytest.fixture
def source():
    """A source of advisories with OSV's protocol. `known` has its advisories, by package."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = json.dumps({"vulns": known.get(query["package"]["name"], [])}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    known: dict[str, list[dict[str, object]]] = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", known
    server.shutdown()
    thread.join()
    server.server_close()


def audit(*options):
    return subprocess.run([sys.executable, ROOT / ".ci/audit", *options], capture_output=True, text=True)


def ask(url):
    return audit("-s", "osv", "--osv-url", url)


def test_without_advisories_it_passes_and_reports_how_many_packages_were_checked(source):
    done = ask(source[0])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "pinned packages were audited" in done.stdout


def test_an_advisory_about_a_pinned_package_fails(source):
    url, known = source
    known["kombu"] = [ADVISORY]
    done = ask(url)
    assert done.returncode == 1
    assert "kombu" in done.stdout
    assert "CVE-2099-0001, fixed in 99" in done.stdout


def test_offline_it_passes_and_reports_that_nothing_was_audited():
    done = ask(f"http://127.0.0.1:{ports.choose()}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no source of advisories can be reached" in done.stdout
    assert "were audited" not in done.stdout


def test_a_failed_audit_does_not_count_as_offline():
    done = subprocess.run(
        [sys.executable, ROOT / ".ci/audit", "--no-such-option"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "pip-audit does not work" in done.stderr
