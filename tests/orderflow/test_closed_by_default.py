"""What is closed by default: production's rules, proxies' headers, and Flower."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import subprocess
import sys

import pytest
from flower import urls

from orderflow import checks
from orderflow.stack import ports
from tests.orderflow.test_checks import Overridden
from tests.processes import ROOT, Process, eventually
from tests.slow import but_first

LONG_KEY = "yZ3" + "k9-Qw_8Lp" * 6
NAMES = [
    "SECURE_SSL_REDIRECT", "SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE", "SECURE_HSTS_SECONDS",
    "SECURE_HSTS_PRELOAD", "SECURE_PROXY_SSL_HEADER",
]  # fmt: skip


def environment(**given):
    nowhere = f"127.0.0.1:{ports.choose()}"
    return {
        "PATH": "/usr/bin:/bin", "SECRET_KEY": LONG_KEY, "ALLOWED_HOSTS": "127.0.0.1",
        "DATABASE_URL": f"postgresql://nobody@{nowhere}/nothing", "BROKER_URL": f"redis://{nowhere}/0", **given,
    }  # fmt: skip


def settings_with(**given):
    """The settings in such an environment, or the sentence with which they refuse."""
    code = "import json; from orderflow import settings as found; "
    code += f"print(json.dumps([getattr(found, name) for name in {NAMES}]))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(**given), capture_output=True, text=True
    )
    return dict(zip(NAMES, json.loads(done.stdout), strict=True)) if not done.returncode else done.stderr


@pytest.mark.parametrize("name", ["Production", "PRODUCTION", "prod", "production ", "staging", "", "live"])
def test_an_unknown_environment_does_not_start(name):
    refusal = settings_with(ORDERFLOW_ENV=name)

    assert "ORDERFLOW_ENV (must be production, development or test" in refusal
    assert "Traceback" not in refusal


def test_the_default_environment_is_production():
    assert settings_with() == {
        "SECURE_SSL_REDIRECT": True, "SESSION_COOKIE_SECURE": True, "CSRF_COOKIE_SECURE": True,
        "SECURE_HSTS_SECONDS": 31_536_000, "SECURE_HSTS_PRELOAD": False, "SECURE_PROXY_SSL_HEADER": None,
    }  # fmt: skip


def test_preloading_and_trust_in_a_proxy_are_opt_in():
    opened = settings_with(SECURE_HSTS_PRELOAD="true", TRUSTED_PROXIES="1")

    assert opened["SECURE_HSTS_PRELOAD"] is True
    assert opened["SECURE_PROXY_SSL_HEADER"] == ["HTTP_X_FORWARDED_PROTO", "https"]


@pytest.mark.parametrize("key", ["x", "k" * 80, LONG_KEY[:49], ""])
def test_a_secret_key_that_can_be_guessed_does_not_start_in_production(monkeypatch, key):
    class Production(Overridden):
        ENVIRONMENT = "production"

    monkeypatch.setattr(checks, "settings", Production("SECRET_KEY", key))
    assert "orderflow.E009" in {found.id for found in checks.check_settings()}
    monkeypatch.setattr(checks, "settings", Production("SECRET_KEY", LONG_KEY))
    assert "orderflow.E009" not in {found.id for found in checks.check_settings()}
    monkeypatch.setattr(checks, "settings", Overridden("SECRET_KEY", key))
    assert "orderflow.E009" not in {found.id for found in checks.check_settings()}


@contextlib.contextmanager
def gunicorn(**given):
    """A web server in production, and its response to a request for its first page."""
    port = ports.choose()
    words = ["gunicorn", "orderflow.wsgi", f"--bind=127.0.0.1:{port}", "--no-control-socket"]
    server = subprocess.Popen([sys.executable, "-m", *words], cwd=ROOT, env=environment(**given))
    try:
        eventually(lambda: answer(port, "/livez"), "the web server answers")
        yield port
    finally:
        server.terminate()
        server.wait(30)


def answer(port, path, headers=None):
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        try:
            connection.request("GET", path, headers=headers or {})
            return connection.getresponse()
        except OSError:
            return None


@pytest.mark.slow
@pytest.mark.parametrize(("proxies", "believed"), [("0", False), ("1", True)])
def test_only_a_trusted_proxy_can_declare_a_request_as_tls(proxies, believed):
    with gunicorn(TRUSTED_PROXIES=proxies) as port:
        for header in ("X-Forwarded-Proto", "X-Forwarded-Protocol", "X-Forwarded-Ssl"):
            value = {"X-Forwarded-Protocol": "ssl", "X-Forwarded-Ssl": "on"}.get(header, "https")
            answered = answer(port, "/", {header: value})
            expected = 302 if believed and header == "X-Forwarded-Proto" else 301
            assert answered.status == expected, header
        assert answer(port, "/").status == 301


@pytest.fixture(params=but_first(["with a password", "without one"]))
def flower(request, tmp_path, transactional_db):
    port = ports.choose()
    given = {"FLOWER_BASIC_AUTH": "admin:flower-password"} if request.param == "with a password" else {}
    server = Process(tmp_path / "flower.log", "flower", "--address=127.0.0.1", f"--port={port}", **given)
    try:
        eventually(lambda: answer(port, "/healthcheck"), server.output)
        yield port, bool(given)
    finally:
        server.kill()


def test_flower_shows_nothing_to_those_without_its_password(flower):
    port, has_password = flower
    open_to_all = {"/healthcheck", r"/static/(.*)", r"/login/?", "/logout", ".*"}
    paths = [
        (getattr(rule, "regex", None) and rule.regex.pattern.rstrip("$")) or rule[0] for rule in urls.handlers
    ]
    closed = [path for path in paths if path not in open_to_all]

    assert "/metrics" in closed
    for path in closed:
        answered = answer(port, path.replace("(.+)", "x").replace("(.*)", "x"))
        assert answered.status in ((401, 405) if has_password else (401, 403, 405)), path
    key = base64.b64encode(b"admin:flower-password").decode()
    answered = answer(port, "/metrics", {"Authorization": f"Basic {key}"})
    assert answered.status == (200 if has_password else 403)
