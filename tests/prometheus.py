"""A real Prometheus for tests, where Debian's package or another one is installed."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from orderflow.stack import ports
from tests.processes import eventually

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Prometheus:
    """A running server: what it has been asked to scrape, and answers to queries."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str, **parameters: Any) -> Any:
        """
        Return the data of an answer of its HTTP API.

        Raises:
            AssertionError: with Prometheus' own words, if it refuses the request.
        """
        query = urllib.parse.urlencode(parameters, doseq=True)
        try:
            with _opener.open(f"{self.url}/api/v1/{path}?{query}", timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{parameters}: {error.read().decode()}") from None

    def is_ready(self) -> bool:
        with contextlib.suppress(OSError), _opener.open(f"{self.url}/-/ready", timeout=2):
            return True
        return False

    def values(self, expression: str) -> list[float]:
        """Return the present value of each series; NaN where there is no number."""
        return [float(series["value"][1]) for series in self.get("query", query=expression)["result"]]

    def targets(self) -> list[Mapping[str, Any]]:
        """Return what it scrapes, with the health of each target."""
        found: list[Mapping[str, Any]] = self.get("targets", state="active")["activeTargets"]
        return found


def program() -> str:
    """Return the program, or skip the test with the reason."""
    found = shutil.which("prometheus")
    if found is None:
        pytest.skip("Prometheus is not installed here (Debian: apt-get install prometheus)")
    return found


@contextlib.contextmanager
def running(folder: Path, configuration: Path, *options: str) -> Iterator[Prometheus]:
    """Run a Prometheus with this configuration, and its data in `folder`, until the block ends."""
    port = ports.choose()
    with (folder / "prometheus.log").open("ab") as log:
        process = subprocess.Popen(
            [
                program(),
                f"--config.file={configuration}",
                f"--storage.tsdb.path={folder / 'prometheus-data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=warn",
                *options,
            ],
            stdout=log,
            stderr=log,
        )
    try:
        server = Prometheus(port)
        eventually(lambda: server.is_ready() or process.poll() is not None, "Prometheus is ready")
        assert process.poll() is None, (folder / "prometheus.log").read_text()
        yield server
    finally:
        process.kill()
        process.wait(10)


def scraping(*targets: str, interval: str = "1s", files: Sequence[str] = ()) -> str:
    """Return a configuration that scrapes these addresses, and those in the files, without any rules."""
    return json.dumps(
        {
            "global": {"scrape_interval": interval, "scrape_timeout": interval},
            "scrape_configs": [
                {"job_name": "orderflow", "static_configs": [{"targets": list(targets)}]},
                {"job_name": "orderflow-processes", "file_sd_configs": [{"files": list(files)}]},
            ],
        }
    )
