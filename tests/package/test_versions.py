"""
The path of docs/outbox.md with every version that the package promises to work with.

Two lists instead of all combinations: each pair of Django and Celery, spread over the versions of Python, and
each version of PostgreSQL. What neither the machine nor the package index has is skipped, with the reason.
"""

from __future__ import annotations

import logging

import kombu
import pytest
from django.conf import settings

from tests import rabbitmq_hosts
from tests.chaos.conftest import AMQP_URL, NO_RABBITMQ
from tests.package import environments, projects, servers

pytestmark = [pytest.mark.nightly, pytest.mark.processes, pytest.mark.timeout(900)]

LIBRARIES = [
    # Python, Django, Celery
    ("3.11", "django==5.2.*", "celery[redis]==5.5.*"),
    ("3.12", "django==5.2.*", "celery[redis]==5.6.*"),
    ("3.13", "django==5.2.*", "celery[redis]<5.8"),
    ("3.12", "django==6.0.*", "celery[redis]==5.5.*"),
    ("3.13", "django==6.*", "celery[redis]==5.5.*"),
    ("3.12", "django==6.*", "celery[redis]==5.6.*"),
    ("3.13", "django==6.*", "celery[redis]<5.8"),
    ("3.14", "django==6.*", "celery[redis]<5.8"),
]
POSTGRESQL = [
    # PostgreSQL, Django
    (14, "django==6.0.*"),  # the last Django for it
    (15, "django==6.*"),
    (16, "django==6.*"),
    (17, "django==6.*"),
    (18, "django==6.*"),
]

FIND_REDIS = "import importlib.util; print(importlib.util.find_spec('redis'))"

logger = logging.getLogger(__name__)

needs_redis = pytest.mark.skipif(
    not settings.BROKER_URL.startswith("redis"), reason="the document's project has Redis as its broker"
)


@pytest.fixture
def database():
    with projects.new_database() as database:
        yield database


@pytest.fixture
def rabbitmq():
    """A virtual host whose queue of the document's project is empty."""
    if not rabbitmq_hosts.answers(AMQP_URL):
        pytest.skip(NO_RABBITMQ)
    delete(AMQP_URL, queue="celery")
    yield AMQP_URL
    delete(AMQP_URL, queue="celery")


def delete(url, *, queue):
    with kombu.Connection(url) as link, link.channel() as channel:
        channel.queue_delete(queue)


@pytest.fixture
def make_project(tmp_path):
    made = []

    def make(version, requirements, database, **options):
        environment = environments.environment(tmp_path, version, requirements)
        logger.info("Python %s: %s", version, environment.versions())
        made.append(projects.Project(tmp_path / "fresh", environment, database, **options))
        return made[-1]

    yield make
    for project in made:
        project.close()


@needs_redis
@pytest.mark.parametrize(("python", "django", "celery"), LIBRARIES, ids=["-".join(row) for row in LIBRARIES])
def test_the_outbox_works_with_this_python_django_and_celery(make_project, database, python, django, celery):
    project = make_project(python, (django, celery, "psycopg[binary]"), database)

    projects.install(project)
    projects.survives_a_killed_worker(project)
    projects.buries_and_replays(project)
    projects.verifies(project)


@needs_redis
@pytest.mark.parametrize(("version", "django"), POSTGRESQL)
def test_the_outbox_works_with_this_postgresql(make_project, version, django):
    with servers.running(version) as database:
        project = make_project("3.13", (django, "celery[redis]<5.8", "psycopg[binary]"), database)

        projects.install(project)
        project.start_worker()
        project.manage("partition_outbox")
        projects.buries_and_replays(project)
        projects.verifies(project)


def test_the_outbox_works_with_rabbitmq_where_no_client_of_redis_is_installed(make_project, database, rabbitmq):
    requirements = ("django==6.*", "celery<5.8", "psycopg[binary]")
    project = make_project("3.12", requirements, database, broker_url=rabbitmq)
    assert project.shell(FIND_REDIS) == "None"

    projects.install(project)
    projects.survives_a_killed_worker(project)
    projects.buries_and_replays(project)
    projects.verifies(project)
