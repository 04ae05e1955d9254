"""
Django's tasks on the outbox, in environments of their own: the conformance suite, and docs/django-tasks.md.

The suite itself is in `tests/outbox/django_tasks`. Packages come from the package index; without it these tests
are skipped, with the reason.
"""

from __future__ import annotations

import logging
import sys

import pytest
from django.conf import settings

from tests.package import environments, projects, suites
from tests.processes import ROOT, eventually

logger = logging.getLogger(__name__)

DOCUMENT = ROOT / "docs" / "django-tasks.md"
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"

pytestmark = [
    pytest.mark.processes,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not settings.BROKER_URL.startswith("redis"),
        reason="the projects of these tests have Redis as their broker",
    ),
]

LIBRARIES = [
    # Python, Django, apps
    (HERE, ("django==5.2.*", "django-tasks>=0.12,<0.13"), ["django_tasks"]),
    ("3.12", ("django==6.0.*",), []),
    ("3.13", ("django>=6.1,<7",), []),
]
WITH = ("celery[redis]<5.8", "psycopg[binary]", "pytest", "pytest-django")


@pytest.fixture
def database():
    with projects.new_database() as database:
        yield database


@pytest.mark.nightly
@pytest.mark.parametrize(("python", "django", "apps"), LIBRARIES, ids=[" ".join(row[1]) for row in LIBRARIES])
def test_the_backend_does_what_django_documents(tmp_path, database, python, django, apps):
    environment = environments.environment(tmp_path, python, (*django, *WITH))
    logger.info("%s: %s", environment.versions(), suites.run(environment, database, apps))


@pytest.fixture
def project(tmp_path, database):
    """The project of both documents, on Django 6."""
    environment = environments.environment(tmp_path, "3.13", ("django>=6.1,<7", *WITH[:2]))
    project = projects.Project(tmp_path / "fresh", environment, database)
    for block in projects.BLOCK.finditer(DOCUMENT.read_text()):
        with (project.folder / block["path"]).open("a") as file:
            file.write(block["text"])
    yield project
    project.close()


def subscribe(project, name):
    """Ask their view to enqueue a task; return the id of its result."""
    return project.shell(f"""
        from django.test import Client
        form = {{"name": "{name}", "email": "{name}@example.com"}}
        response = Client(SERVER_NAME="localhost").post("/subscribe/", form)
        assert response.status_code == 201
        print(response.text)
    """)


def result(project, result_id):
    """What their code sees of a result."""
    return project.shell(f"""
        from signups.newsletters import greet
        result = greet.get_result("{result_id}")
        print(result.status, result._return_value, *[error.exception_class.__name__ for error in result.errors])
    """)


@pytest.mark.slow
def test_the_project_of_the_document_runs_djangos_tasks(project):
    projects.install(project)

    (project.outside / "wait").touch()
    killed = subscribe(project, "ada")
    worker = project.start_worker()
    eventually((project.outside / "asked").exists, project.log)
    project.kill(worker)
    assert result(project, killed) == "RUNNING None"
    (project.outside / "wait").unlink()
    project.start_worker()
    eventually(lambda: result(project, killed) == "SUCCESSFUL 1", project.log, within=180)
    assert project.mails_to("ada") == 1

    (project.outside / "refuse").touch()
    failed = subscribe(project, "bob")
    eventually(lambda: result(project, failed) == "FAILED None Permanent", project.log)
    assert project.shell(projects.DEAD_LETTERS) == "('outbox.django_tasks.run', 'open')"
    (project.outside / "refuse").unlink()
    assert project.shell(projects.REPLAY_IN_THE_ADMIN).splitlines() == ["200 200 200", "200 200 True"]
    eventually(lambda: result(project, failed) == "SUCCESSFUL 1 Permanent", project.log)
    eventually(lambda: "recovered" in project.shell(projects.DEAD_LETTERS), project.log)
    assert project.mails_to("bob") == 1
    projects.verifies(project)
