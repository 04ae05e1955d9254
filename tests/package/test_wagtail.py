"""
Wagtail, which nobody here wrote, runs on the backend for Django's tasks unchanged.

It enqueues tasks that update its search index and its index of references, and that delete files.
"""

from __future__ import annotations

import sys

import pytest
from django.conf import settings

from tests.package import environments, projects
from tests.processes import eventually

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.processes,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not settings.BROKER_URL.startswith("redis"), reason="the project has Redis as its broker"
    ),
]

SETTINGS = """
INSTALLED_APPS += ["django.contrib.postgres", "outbox"]
DATABASES = {{"default": {database!r}}}
TASKS = {{"default": {{"BACKEND": "outbox.django_tasks.OutboxBackend"}}}}
OUTBOX_RELAY_QUEUE = "celery"
MEDIA_ROOT = {media!r}
"""

PREPARE = """
from django.contrib.auth.models import User
from django.db import transaction
from home.models import HomePage
from wagtail.models import Page
home = Page.objects.filter(depth=2).get()
LINK = f'<p><a linktype="page" id="{home.pk}">home</a></p>'
"""

TASKS = """
from outbox.models import DeadLetter, EnqueuedTask
for task, status in sorted(set(EnqueuedTask.objects.values_list("task", "status"))):
    print(task, status)
print(DeadLetter.objects.count(), "dead letters")
"""

MODELS = """
from wagtail.admin.panels import FieldPanel
from wagtail.fields import RichTextField
from wagtail.models import Page


class HomePage(Page):
    body = RichTextField(blank=True)
    content_panels = [*Page.content_panels, FieldPanel("body")]
"""

UPDATE, DELETE = "wagtail.tasks.update_reference_index_task", "wagtail.tasks.delete_file_from_storage_task"
SEARCH = "modelsearch.tasks.insert_or_update_object_task"


class WagtailProject(projects.Project):
    """What `wagtail start` makes, with the outbox in its settings."""

    def __init__(self, folder, environment, database):
        self.folder, self.python = folder / "project", environment.python
        self.media = folder / "media"
        self._environment = {
            "PATH": "/usr/bin:/bin", "BROKER_URL": settings.BROKER_URL, "PYTHONUNBUFFERED": "1",
            "HOME": str(folder),
        }  # fmt: skip
        self._workers = []
        self.folder.mkdir(parents=True)
        self.run(environment.python.with_name("wagtail"), "start", "mysite", ".")
        self._environment["DJANGO_SETTINGS_MODULE"] = "mysite.settings.dev"
        written = {
            block["path"]: block["text"] for block in projects.BLOCK.finditer(projects.DOCUMENT.read_text())
        }
        for name in ("mysite/celery.py", "mysite/__init__.py"):
            (self.folder / name).write_text(written[name])
        (self.folder / "home" / "models.py").write_text(MODELS)
        with (self.folder / "mysite" / "settings" / "base.py").open("a") as file:
            file.write(SETTINGS.format(database=dict(database), media=str(self.media)))

    def do(self, code):
        """Run code of an editor; return what it printed."""
        return self.shell(PREPARE + code)


@pytest.fixture
def database():
    with projects.new_database() as database:
        yield database


@pytest.fixture(params=[(HERE, "django==5.2.*"), ("3.13", "django>=6.1,<7")], ids=["django 5.2", "django 6"])
def project(request, tmp_path, database):
    python, django = request.param
    requirements = (django, "wagtail>=8,<9", "celery[redis]<5.8", "psycopg[binary]")
    environment = environments.environment(tmp_path, python, requirements)
    project = WagtailProject(tmp_path / "wagtail", environment, database)
    yield project
    project.close()


def known(project):
    """How many links to the home page Wagtail knows, and how many pages its search finds."""
    return project.do("""
from wagtail.models import ReferenceIndex
links = ReferenceIndex.get_references_to(home).filter(model_path__startswith="body")
print(links.count(), len(Page.objects.search("Bulletin")))
""")


def test_wagtail_runs_on_the_backend_unchanged(project):
    project.manage("check", "--fail-level", "ERROR")
    project.manage("makemigrations", "home")
    project.manage("migrate")
    project.do("""
try:
    with transaction.atomic():
        home.add_child(instance=HomePage(title="Never", body=LINK))
        raise RuntimeError
except RuntimeError:
    pass
""")
    assert project.shell(TASKS) == "0 dead letters"

    image = project.do("""
import io
from django.core.files.images import ImageFile
from PIL import Image as Picture
from wagtail.images.models import Image
page = home.add_child(instance=HomePage(title="Bulletin", body=LINK))
page.save_revision(user=User.objects.create_superuser("editor")).publish()
content = io.BytesIO()
Picture.new("RGB", (8, 8)).save(content, "PNG")
print(Image.objects.create(title="Red", file=ImageFile(content, name="red.png")).file.name)
""")
    assert project.shell(TASKS).splitlines() == [f"{SEARCH} READY", f"{UPDATE} READY", "0 dead letters"]
    assert known(project) == "0 0"

    worker = project.start_worker()
    done = [f"{SEARCH} SUCCESSFUL", f"{UPDATE} SUCCESSFUL", "0 dead letters"]
    eventually(lambda: project.shell(TASKS).splitlines() == done, project.log, within=180)
    assert known(project) == "1 1"

    assert (project.media / image).exists()
    project.do("from wagtail.images.models import Image; Image.objects.get().delete()")
    eventually(lambda: not (project.media / image).exists(), project.log, within=180)
    eventually(
        lambda: "READY" not in project.shell(TASKS) and "RUNNING" not in project.shell(TASKS), project.log
    )
    assert f"{DELETE} SUCCESSFUL" in project.shell(TASKS)
    assert "0 dead letters" in project.shell(TASKS)
    assert worker.poll() is None
    projects.verifies(project)
