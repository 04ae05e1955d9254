"""
Podman in place of Compose: builds the images of the compose files and starts their services in order.

It supports the options that these files use. Ports are not published, because other tests may use them.
"""

from __future__ import annotations

import functools
import json
import os
import re
import secrets
import shlex
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.processes import ROOT, eventually

SERVERS = Path(__file__).parent / "servers"
IMAGES = {"orderflow:local": "runtime", "orderflow-sandbox:local": "sandbox"}
STARTS_WITHIN = 180
"""Seconds until a service's probe must succeed. Eight Python processes start at once on two cores."""


def podman(*words: object, within: float = 120, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run one Podman command, without a check of its exit code."""
    return subprocess.run(
        ["podman", *map(str, words)], capture_output=True, text=True, timeout=within, check=False, **options
    )


def last_error(done: subprocess.CompletedProcess[str]) -> str:
    """Return the last line of a command's error output."""
    return (done.stderr.strip().splitlines() or ["no error output"])[-1]


def must(*words: object, within: float = 120) -> str:
    """
    Run one Podman command and return its output.

    Raises:
        AssertionError: with its output, if it failed.
    """
    done = podman(*words, within=within)
    assert done.returncode == 0, f"podman {words[0]}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout.strip()


def full_name(image: str) -> str:
    """Return the name of a public image with its registry, which Podman needs."""
    return f"docker.io/{image}" if "/" in image else f"docker.io/library/{image}"


def is_here(image: str) -> bool:
    """Return whether an image is present, or its registry provides it."""
    return (
        not podman("image", "exists", image).returncode
        or not podman("pull", "-q", image, within=600).returncode
    )


@functools.cache
def why_not() -> str:
    """Return why no container can be built and started here; empty if containers can."""
    if not shutil.which("podman"):
        return "podman is not installed here"
    base = full_name(re.findall(r"^FROM (python:\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[0])
    if not is_here(base):
        return f"no base image: {last_error(podman('pull', '-q', base, within=600))}"
    started = podman("run", "--rm", base, "true")
    if started.returncode:
        return f"podman starts no container here: {last_error(started)}"
    return ""


@functools.cache
def build(target: str, name: str, *, ca_bundle: Path) -> None:
    """Build one target of the Dockerfile as Compose does, once for all projects that use it."""
    # Podman's own format cannot store the health check.
    must(
        *("build", "--format", "docker", "--secret", f"id=ca_bundle,src={ca_bundle}"),
        *("--target", target, "-t", name, ROOT),
        within=1500,
    )


class Project:
    """The services of some compose files, under the project's own names."""

    def __init__(self, compose: dict[str, Any], *, folder: Path, settings: dict[str, str]) -> None:
        """`folder` has the secrets that make-secrets made; `settings` is the content of `.env`."""
        self.services = {
            name: service for name, service in compose["services"].items() if "profiles" not in service
        }
        self.networks = compose["networks"]
        self.volumes = compose["volumes"]
        self.secrets = compose["secrets"]
        self.folder = folder
        self.settings = settings
        self.prefix = f"orderflow-test-{secrets.token_hex(4)}"
        self.stood_in: list[str] = []

    def build(self) -> None:
        """
        Build the project's images, and stand-ins for the servers that no registry provides.

        The stand-ins are the servers of run.py, and Debian's nginx.

        Skips the test if a server has neither image.
        """
        # secrets/ca_bundle has the authorities that this machine trusts.
        bundle = Path(os.environ.get("SSL_CERT_FILE") or self._file_of("ca_bundle"))
        used = {service["image"] for service in self.services.values()}
        for name in IMAGES.keys() & used:
            build(IMAGES[name], f"localhost/{name}", ca_bundle=bundle)
        self.images = {name: f"localhost/{name}" for name in IMAGES}
        for name, service in self.services.items():
            image = service["image"]
            if image in self.images:
                continue
            self.images[image] = full_name(image)
            if not is_here(full_name(image)):
                self.stood_in.append(name)
                self.images[image] = self._stand_in(name, bundle)

    def _stand_in(self, name: str, bundle: Path) -> str:
        build("packages", "localhost/orderflow-packages:test", ca_bundle=bundle)
        image = f"localhost/orderflow-test-{name}"
        built = podman(
            *("build", "--format", "docker", "--pull=never", "-f", SERVERS / "Dockerfile"),
            *("--target", name, "-t", image, SERVERS),
            within=600,
        )
        if built.returncode:
            pytest.skip(f"no registry has the image of {name}, and its stand-in failed: {last_error(built)}")
        return image

    def up(self) -> None:
        """Start every service after its dependencies are ready; return when all are ready."""
        for name, network in self.networks.items():
            must("network", "create", *["--internal"] * bool((network or {}).get("internal")), self._own(name))
        left = dict(self.services)
        while left:
            for name, service in list(left.items()):
                if not set(service.get("depends_on", {})) & set(left):
                    for needed, how in service.get("depends_on", {}).items():
                        self._await(needed, how["condition"])
                    must("run", "-d", *self._run(name, service), within=60)
                    del left[name]
        for name in self.running():
            self._await(name, "service_healthy")

    def down(self) -> None:
        """Remove the containers, volumes and networks. The images are kept for the next run."""
        named = ("--filter", f"name={self.prefix}")
        containers = podman("ps", "-aq", *named).stdout.split()
        podman("rm", "-f", "-t", "5", *containers)
        podman("volume", "rm", "-f", *podman("volume", "ls", "-q", *named).stdout.split())
        podman("network", "rm", "-f", *podman("network", "ls", "-q", *named).stdout.split())

    def running(self) -> list[str]:
        """Return the services that must run until they are stopped."""
        ends = {
            needed
            for service in self.services.values()
            for needed, how in service.get("depends_on", {}).items()
            if how["condition"] == "service_completed_successfully"
        }
        return [name for name in self.services if name not in ends]

    def run(self, name: str, *words: object, typed: str = "", within: float = 120) -> str:
        """Run a command in the container of a service and return its output."""
        done = podman("exec", "-i", self._own(name), *words, input=typed, within=within)
        assert done.returncode == 0, f"{name}: {words}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout.strip()

    def reaches(self, name: str, host: str, port: int) -> bool:
        """Return whether a service can open a connection to another one."""
        tries = f"import socket; socket.create_connection(('{host}', {port}), timeout=3)"
        return not podman("exec", self._own(name), "python", "-c", tries).returncode

    def state(self, name: str) -> dict[str, Any]:
        """Return what Podman knows about the container of a service."""
        state: dict[str, Any] = json.loads(must("inspect", self._own(name)))[0]
        return state

    def log(self, name: str) -> str:
        """Return the end of a service's log."""
        done = podman("logs", "--tail", "40", self._own(name))
        return done.stdout + done.stderr

    def _await(self, name: str, condition: str) -> None:
        if condition == "service_completed_successfully":
            assert must("wait", self._own(name), within=STARTS_WITHIN) == "0", self.log(name)
        elif condition == "service_healthy" and self._has_probe(name):
            eventually(
                lambda: not podman("healthcheck", "run", self._own(name)).returncode or self._must_run(name),
                lambda: f"{name} is not healthy: {self.log(name)}",
                within=STARTS_WITHIN,
            )

    def _must_run(self, name: str) -> bool:
        assert self.state(name)["State"]["Running"], f"{name} has ended: {self.log(name)}"
        time.sleep(1)
        return False

    def _has_probe(self, name: str) -> bool:
        return bool(self.state(name)["Config"].get("Healthcheck"))

    def _own(self, name: str) -> str:
        return f"{self.prefix}-{name}"

    def _file_of(self, secret: str) -> Path:
        named = self.secrets[secret]["file"]
        return self.folder / Path(named).name if named.startswith("./secrets/") else ROOT / named

    def _run(self, name: str, service: dict[str, Any]) -> list[object]:
        words: list[object] = ["--name", self._own(name)]
        for network in service["networks"]:
            words += ["--network", f"{self._own(network)}:alias={name}"]
        for variable, value in (service.get("environment") or {}).items():
            passed = self.settings.get(variable) if value is None else str(value).replace("$$", "$")
            if passed is not None:
                words += ["-e", f"{variable}={passed}"]
        for secret in service.get("secrets", []):
            named = secret if isinstance(secret, dict) else {"source": secret, "target": secret}
            words += ["-v", f"{self._file_of(named['source'])}:{Path('/run/secrets') / named['target']}:ro"]
        for volume in service.get("volumes", []):
            source, rest = volume.split(":", 1)
            words += ["-v", f"{self._own(source) if source in self.volumes else ROOT / source}:{rest}"]
        for folder in service.get("tmpfs", []):
            words += ["--tmpfs", folder]
        for right in service.get("cap_drop", []):
            words += ["--cap-drop", right]
        for option in service.get("security_opt", []):
            words += ["--security-opt", option.removesuffix(":true")]
        if service.get("read_only"):
            # Without this Podman would make more folders writable than Docker does.
            words += ["--read-only", "--read-only-tmpfs=false"]
        if "user" in service:
            words += ["--user", service["user"]]
        probe = service.get("healthcheck", {})
        if probe.get("disable"):
            words += ["--no-healthcheck"]
        elif "test" in probe:
            how, *arguments = probe["test"]
            text = arguments[0].replace("$$", "$") if how == "CMD-SHELL" else shlex.join(arguments)
            # No interval: the probes are run from here, because not every machine has systemd's timers.
            words += ["--health-cmd", text, "--health-interval", "disable"]
        command = [word.replace("$$", "$") for word in service.get("command", [])]
        return [*words, self.images[service["image"]], *command]


def make_secrets(folder: Path) -> None:
    """Make the secrets as the documentation describes."""
    subprocess.run([ROOT / "deploy/compose/make-secrets", folder], check=True, capture_output=True)


def example() -> dict[str, str]:
    """Return the settings of .env.example."""
    return dict(re.findall(r"^([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
