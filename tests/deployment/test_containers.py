"""The container files, checked as far as possible without an engine."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import celeryconfig
from tests.deployment.compose import BASE, FILES, OTHERS, together
from tests.processes import ROOT
from tests.slow import but_first

SANDBOX, PRODUCTION, RABBITMQ = OTHERS
TOGETHER = [(BASE, SANDBOX), (BASE, PRODUCTION), (BASE, PRODUCTION, RABBITMQ), (BASE, SANDBOX, RABBITMQ)]
BIN = Path(sys.executable).parent
SERVERS = {"postgres", "valkey", "rabbitmq", "front"}
OBSERVERS = {"prometheus", "alertmanager", "grafana", "jaeger"}
"""The services of the profile `observe`; see also `test_observers`."""
# Stand-ins for the secrets, and the servers that they belong to.
MADE_BY_SANDBOX = {"fcm_credentials": "/sandbox/fcm.json", "email_url": "/sandbox/email_url"}
SANDBOX_SERVERS = {"payments", "warehouse", "smtp", "sms", "push", "mailbox"}


@pytest.fixture(params=TOGETHER, ids=lambda names: "+".join(name.split(".")[1] for name in names[1:]))
def compose(request):
    return together(*request.param)


def ours(compose):
    """Return the services that run the project's own code, except the sandbox."""
    return {
        name: service
        for name, service in compose["services"].items()
        if name not in SERVERS | OBSERVERS | SANDBOX_SERVERS
    }


def words(service):
    return service.get("command", [])


@pytest.mark.parametrize("name", but_first(FILES))
def test_the_compose_files_follow_the_schema(name):
    done = subprocess.run(
        [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", ROOT / name],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_dependencies_of_services_exist_and_have_health_checks(compose):
    for name, service in compose["services"].items():
        for needed, how in service.get("depends_on", {}).items():
            waited_for = compose["services"][needed]
            has_probe = "healthcheck" in waited_for or waited_for["image"] == "orderflow:local"
            assert how["condition"] != "service_healthy" or has_probe, (name, needed)


def test_who_reads_what_the_sandbox_makes_waits_for_it():
    services = together(BASE, SANDBOX)["services"]
    readers = {
        name for name, service in services.items() if "sandbox:/sandbox:ro" in service.get("volumes", [])
    }
    assert readers == {"worker-email", "worker-push", "worker-jobs"}
    for name in readers:
        for maker in ("push", "smtp"):
            assert services[name]["depends_on"][maker]["condition"] == "service_healthy", (name, maker)
        assert "migrate" in services[name]["depends_on"], name


def test_the_broker_takes_its_users_from_other_containers_whatever_its_build_thinks_of_protected_mode():
    command = together(BASE)["services"]["valkey"]["command"]
    assert command[command.index("--protected-mode") + 1] == "no"


def test_every_volume_network_and_secret_is_declared(compose):
    for name, service in compose["services"].items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (ROOT / source).exists(), (name, volume)
        assert set(service["networks"]) <= compose["networks"].keys(), name
        named = {
            secret["source"] if isinstance(secret, dict) else secret for secret in service.get("secrets", [])
        }
        assert named <= compose["secrets"].keys(), name


def test_a_service_gets_the_secrets_that_it_reads(compose):
    for name, service in compose["services"].items():
        if name == "front":
            continue  # its configuration reads them
        read = re.findall(r"/run/secrets/(\w+)", str(service.get("environment", {})) + str(words(service)))
        if name == "postgres":
            read += re.findall(r"\$secrets/(\w+)", (ROOT / "deploy/postgres/roles.sh").read_text())
        given = {secret for secret in service.get("secrets", []) if isinstance(secret, str)}
        assert set(read) <= given, name
        unread = (
            given - set(read) - {secret for secret, file in MADE_BY_SANDBOX.items() if file in str(service)}
        )
        assert not unread, (name, "is given secrets that it does not read")


def test_every_host_in_an_address_is_a_service_of_a_network_in_common(compose):
    for name, service in ours(compose).items():
        text = str(service.get("environment", {})) + str(words(service))
        for host in re.findall(r"(?:://|@)([a-z]+):\d+", text):
            if host != "localhost":
                assert set(service["networks"]) & set(compose["services"][host]["networks"]), (name, host)


def test_builds_are_given_the_authorities_to_trust_and_containers_are_not(compose):
    for name, service in compose["services"].items():
        if "build" in service:
            assert service["build"]["secrets"] == ["ca_bundle"], name
        assert "ca_bundle" not in service.get("secrets", []), name
    downloads = re.findall(
        r"^RUN(?:.*\\\n)*.*(?:pip install).*$", (ROOT / "Dockerfile").read_text(), re.MULTILINE
    )
    assert len(downloads) == 2
    for download in downloads:
        assert "--mount=type=secret,id=ca_bundle" in download


def test_every_third_party_image_is_pinned(compose):
    for name, service in compose["services"].items():
        assert re.search(r":(local|v?\d+\.\d+)", service["image"]), name


def test_the_workers_take_from_every_queue_and_keep_their_own_unacknowledged_messages(compose):
    taken = {}
    for service in ours(compose).values():
        if "-Q" in words(service):
            queue = words(service)[words(service).index("-Q") + 1]
            taken[queue] = service["environment"]["ORDERFLOW_POOL"]
    assert taken == {queue: queue for queue in celeryconfig.QUEUES}


def test_only_the_front_of_production_is_open_to_other_machines(compose):
    for name, service in compose["services"].items():
        for port in service.get("ports", []):
            is_front = name == "front" and port in ("80:8080", "443:8443")
            assert is_front or port.startswith("127.0.0.1:"), (name, port)


def test_our_services_have_no_more_rights_than_they_need(compose):
    for name, service in compose["services"].items():
        if service["image"].endswith(":local") or name in {"front"} | OBSERVERS:
            assert service["read_only"], name
            assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name


def test_servers_are_on_networks_that_lead_nowhere_and_the_sandbox_reaches_none_of_them(compose):
    networks, services = compose["networks"], compose["services"]
    for name in ("postgres", "valkey", "rabbitmq"):
        for network in services.get(name, {}).get("networks", []):
            assert networks[network]["internal"], name
    for name in (SANDBOX_SERVERS | OBSERVERS) & services.keys():
        assert not set(services[name]["networks"]) & {"database", "broker", "web"}, name
    assert set(services["flower"]["networks"]) == {"broker", "edge"}
    assert networks["observe"]["internal"]
    assert "outside" not in services["web"]["networks"]


def test_only_migrations_have_the_role_that_owns_the_tables(compose):
    owners = {
        name for name, service in ours(compose).items() if "owner_database_url" in service.get("secrets", [])
    }
    assert owners == {"migrate"}
    assert "database_url" not in compose["services"]["flower"]["secrets"]


def test_production_has_nothing_of_the_sandbox():
    production = together(BASE, PRODUCTION)
    assert not SANDBOX_SERVERS & production["services"].keys()
    text = (ROOT / BASE).read_text() + (ROOT / PRODUCTION).read_text()
    assert not re.search(r"sk_test|http://(payments|warehouse|sms|push):", text)


def test_the_sandbox_is_given_no_key_of_a_real_provider():
    sandbox = together(BASE, SANDBOX)
    for name in ("stripe_api_key", "warehouse_token", "email_url", "twilio_auth_token", "fcm_credentials"):
        assert sandbox["secrets"][name]["file"] == f"./deploy/compose/sandbox/{name}"
        assert "live" not in (ROOT / sandbox["secrets"][name]["file"]).read_text()


def test_who_mails_in_the_sandbox_reads_the_address_with_the_password_that_the_mail_server_writes():
    services = together(BASE, SANDBOX)["services"]
    mail = words(services["smtp"])
    assert mail[mail.index("--account") + 1] == "/data/email_url"
    assert mail[mail.index("--address") + 1] == f"smtp:{mail[mail.index('--smtp-port') + 1]}"
    assert "sandbox:/data" in services["smtp"]["volumes"]
    for name in ("worker-email", "worker-jobs"):
        assert services[name]["environment"]["EMAIL_URL_FILE"] == "/sandbox/email_url"
        assert "sandbox:/sandbox:ro" in services[name]["volumes"]


# Settings ----------------------------------------------------------------------------------------


def settings_read():
    text = (ROOT / "orderflow" / "settings.py").read_text()
    return set(re.findall(r"env\.\w+\(\s*\"([A-Z_]+)\"", text))


def test_the_example_names_every_setting_and_no_other():
    named = set(re.findall(r"^([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert named == settings_read()


def test_every_setting_reaches_a_container(compose):
    reached = {
        variable.removesuffix("_FILE") if variable.removesuffix("_FILE") in settings_read() else variable
        for service in ours(compose).values()
        for variable in service["environment"]
    }
    assert settings_read() <= reached


NEEDED = {
    "web": (
        "ALLOWED_HOSTS",
        "CSRF_TRUSTED_ORIGINS",
        "TRUSTED_PROXIES",
        "API_RATE_LIMIT",
        "SECURE_SSL_REDIRECT",
    ),
    "worker-orders": ("STRIPE_API_KEY", "STRIPE_API_BASE", "WAREHOUSE_URL", "WAREHOUSE_TOKEN"),
    "worker-email": ("EMAIL_URL", "DEFAULT_FROM_EMAIL"),
    "worker-sms": ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "TWILIO_FROM", "TWILIO_API_BASE"),
    "worker-push": ("FCM_PROJECT_ID", "FCM_CREDENTIALS_FILE", "FCM_API_BASE"),
    "worker-jobs": (
        "STRIPE_API_KEY",
        "WAREHOUSE_TOKEN",
        "EMAIL_URL",
        "TWILIO_AUTH_TOKEN",
        "FCM_CREDENTIALS_FILE",
    ),
    "migrate": ("ORDERFLOW_ADMIN_USER", "ORDERFLOW_ADMIN_PASSWORD"),
}
COMMON = ("ORDERFLOW_ENV", "SECRET_KEY", "DATABASE_URL", "BROKER_URL", "REDIS_URL", "LOG_LEVEL", "SENTRY_DSN")


def test_settings_reach_the_containers_that_need_them(compose):
    for name, service in ours(compose).items():
        for setting in (*COMMON, *NEEDED.get(name, ())):
            assert {setting, f"{setting}_FILE"} & service["environment"].keys(), (name, setting)


def test_variables_that_are_passed_through_are_in_the_example(compose):
    for name, service in ours(compose).items():
        for variable, value in service["environment"].items():
            assert value is not None or variable in settings_read(), (name, variable)


# Images ------------------------------------------------------------------------------------------


def test_the_dockerfile_passes_its_linter():
    done = subprocess.run(
        [BIN / "hadolint", "--ignore", "DL3008", ROOT / "Dockerfile"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_images_do_not_run_as_root():
    stages = re.split(r"^FROM ", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    for stage in stages:
        if " AS runtime" in stage or " AS sandbox" in stage:
            assert re.search(r"^USER \d+:\d+$", stage, re.MULTILINE)


def test_no_file_uses_options_that_docker_does_not_accept(tmp_path):
    docker = shutil.which("docker")
    works = docker and not subprocess.run([docker, "compose", "version"], capture_output=True).returncode
    if not works:
        pytest.skip("docker compose is not installed here")
    for names in TOGETHER:
        files = [word for name in names for word in ("-f", ROOT / name)]
        done = subprocess.run(
            [docker, "compose", *files, "config", "-q"], env={"PATH": "/usr/bin"}, capture_output=True
        )
        assert done.returncode == 0, done.stderr
