"""
A Django project that has never heard of OrderFlow installs the outbox and uses it, as docs/outbox.md says.

What the wheel depends on comes from the package index. Other versions of it are in `test_versions`.
"""

from __future__ import annotations

import sys

import pytest
from django.conf import settings

from tests.package import environments, projects

pytestmark = [
    pytest.mark.slow,
    pytest.mark.processes,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not settings.BROKER_URL.startswith("redis"), reason="the document's project has Redis as its broker"
    ),
]


@pytest.fixture
def database():
    with projects.new_database() as database:
        yield database


@pytest.fixture
def project(tmp_path, database):
    environment = environments.environment(tmp_path, f"{sys.version_info.major}.{sys.version_info.minor}")
    project = projects.Project(tmp_path / "fresh", environment, database)
    yield project
    project.close()


def test_a_fresh_project_delivers_buries_and_replays(project):
    projects.install(project)
    projects.survives_a_killed_worker(project)
    projects.buries_and_replays(project)
    projects.verifies(project)
