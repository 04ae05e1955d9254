"""The container files, checked as far as that goes without an engine."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import celeryconfig
from tests.processes import ROOT

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
BIN = Path(sys.executable).parent


def words(name):
    return SERVICES[name].get("command", [])


def dependencies():
    for name, service in SERVICES.items():
        for needed, how in service.get("depends_on", {}).items():
            yield name, needed, how["condition"]


def test_the_compose_file_follows_the_schema():
    done = subprocess.run(
        [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", ROOT / "docker-compose.yml"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_a_service_waits_for_exists_and_can_be_waited_for():
    for name, needed, condition in dependencies():
        assert needed in SERVICES, (name, needed)
        if condition == "service_healthy":
            assert "healthcheck" in SERVICES[needed], (name, needed)


def test_every_volume_is_declared():
    for name, service in SERVICES.items():
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in COMPOSE["volumes"], (name, volume)


def test_every_host_in_an_address_is_a_service():
    for host in re.findall(r"(?:://|@)([a-z]+):\d+", (ROOT / "docker-compose.yml").read_text()):
        assert host == "localhost" or host in SERVICES, host


def test_every_image_of_others_is_pinned():
    for name, service in SERVICES.items():
        assert re.search(r":(local|\d+\.\d+)", service["image"]), name


def test_the_workers_take_from_every_queue():
    taken = {
        word[index + 1] for word in map(words, SERVICES) for index, flag in enumerate(word) if flag == "-Q"
    }
    assert taken == set(celeryconfig.QUEUES)


def test_every_pool_keeps_its_own_unacknowledged_messages():
    for name in SERVICES:
        if "-Q" in words(name):
            queue = words(name)[words(name).index("-Q") + 1]
            assert SERVICES[name]["environment"]["ORDERFLOW_POOL"] == queue


def test_ports_are_open_on_this_machine_only():
    for name, service in SERVICES.items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), (name, port)


def test_our_services_have_no_more_rights_than_they_need():
    for name, service in SERVICES.items():
        if service["image"] == "orderflow:local":
            assert service["read_only"], name
            assert service["cap_drop"] == ["ALL"], name


def test_no_secret_has_a_value_in_the_file():
    for name in ("SECRET_KEY", "POSTGRES_PASSWORD", "FLOWER_BASIC_AUTH"):
        assert f"{name}:?" in (ROOT / "docker-compose.yml").read_text()


def test_the_dockerfile_passes_its_linter():
    done = subprocess.run(
        [BIN / "hadolint", "--ignore", "DL3008", ROOT / "Dockerfile"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_image_does_not_run_as_root():
    assert re.search(r"^USER \d+:\d+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)


def test_the_example_names_every_setting_and_no_other():
    settings = (ROOT / "orderflow" / "settings.py").read_text()
    read = set(re.findall(r"env\.\w+\(\s*\"(\w+)\"", settings))
    named = set(re.findall(r"^([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert named == read


def test_docker_compose_itself_accepts_the_file(tmp_path):
    docker = shutil.which("docker")
    works = docker and not subprocess.run([docker, "compose", "version"], capture_output=True).returncode
    if not works:
        pytest.skip("docker compose is not installed here")
    variables = {"SECRET_KEY": "x", "POSTGRES_PASSWORD": "x", "FLOWER_BASIC_AUTH": "x:y", "PATH": "/usr/bin"}
    done = subprocess.run(
        [docker, "compose", "-f", ROOT / "docker-compose.yml", "config", "-q"],
        env=variables,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
