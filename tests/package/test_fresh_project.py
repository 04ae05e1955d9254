"""
A Django project that has never heard of OrderFlow installs the outbox and uses it, as docs/outbox.md says.

The blocks of the document are the project's code. What the wheel depends on comes from the package index.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import textwrap
import venv

import psycopg
import pytest
from django.conf import settings
from django.db import connection
from psycopg import sql

from tests import databases
from tests.processes import ROOT, eventually

DOCUMENT = ROOT / "docs" / "outbox.md"
BLOCK = re.compile(r'^```python title="(?P<path>[^"]+)"(?P<replace> replace)?\n(?P<text>.*?)^```$', re.M | re.S)
NAME = "fresh_project"
UNREACHABLE = re.compile("No matching distribution|Connection|Temporary failure")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.processes,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not settings.BROKER_URL.startswith("redis"), reason="the document's project has Redis as its broker"
    ),
]

OUTSIDE = '''
"""A mail server that can be made to wait and to refuse."""
import pathlib, time
from django.core.mail.backends.filebased import EmailBackend
from outbox.resilience import Permanent

FOLDER = pathlib.Path({folder!r})

class Outside(EmailBackend):
    def send_messages(self, messages):
        (FOLDER / "asked").touch()
        while (FOLDER / "wait").exists():
            time.sleep(0.05)
        if (FOLDER / "refuse").exists():
            raise Permanent("the mailbox does not exist")
        return super().send_messages(messages)
'''


DEAD_LETTERS = """
from outbox.models import DeadLetter
print(*DeadLetter.objects.values_list("consumer", "resolution"))
"""


class Project:
    """A project created by `startproject`, in its own environment."""

    def __init__(self, folder, database):
        self.folder, self.python = folder / "project", folder / "venv" / "bin" / "python"
        self.mails, self.outside = folder / "mails", folder / "outside"
        self.outside.mkdir()
        self._environment = {
            "PATH": "/usr/bin:/bin", "BROKER_URL": settings.BROKER_URL, "PYTHONUNBUFFERED": "1",
            "HOME": str(folder),
        }  # fmt: skip
        self._workers = []
        venv.create(folder / "venv", with_pip=True)
        self._install(folder)
        self.folder.mkdir()
        self.run(self.python, "-m", "django", "startproject", "mysite", ".")
        self.manage("startapp", "signups")
        for block in BLOCK.finditer(DOCUMENT.read_text()):
            with (self.folder / block["path"]).open("w" if block["replace"] else "a") as file:
                file.write(block["text"])
        (self.folder / "outside.py").write_text(OUTSIDE.format(folder=str(self.outside)))
        with (self.folder / "mysite" / "settings.py").open("a") as file:
            file.write(f"DATABASES = {{'default': {database!r}}}\n")
            file.write(f"EMAIL_BACKEND, EMAIL_FILE_PATH = 'outside.Outside', {str(self.mails)!r}\n")

    def _install(self, folder):
        wheels = folder / "wheels"
        for arguments in (
            ["wheel", "--no-deps", "--wheel-dir", str(wheels), str(ROOT / "outbox")],
            ["install", "--find-links", str(wheels), "orderflow-outbox", "psycopg[binary]", "celery[redis]"],
        ):
            done = subprocess.run(
                [self.python, "-m", "pip", *arguments], capture_output=True, text=True, timeout=400,
                env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
            )  # fmt: skip
            if done.returncode and re.search(
                "No matching distribution|Connection|Temporary failure", done.stderr
            ):
                pytest.skip(f"no package index to install from: {done.stderr.strip().splitlines()[-1]}")
            assert done.returncode == 0, done.stderr[-3000:]

    def run(self, *words, timeout=120):
        done = subprocess.run(
            [str(word) for word in words], cwd=self.folder, env=self._environment, capture_output=True,
            text=True, timeout=timeout,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
        return done.stdout

    def manage(self, *words):
        return self.run(self.python, "manage.py", *words)

    def shell(self, code):
        """Run code in the project; return its output."""
        return self.manage("shell", "--no-imports", "-c", textwrap.dedent(code)).strip()

    def sign_up(self, name):
        assert (
            self.shell(f"""
            from django.test import Client
            form = {{"name": "{name}", "email": "{name}@example.com"}}
            print(Client(SERVER_NAME="localhost").post("/sign-up/", form).status_code)
        """)
            == "201"
        )

    def start_worker(self):
        with (self.folder / "worker.log").open("ab") as log:
            worker = subprocess.Popen(
                [self.python, "-m", "celery", "-A", "mysite", "worker", "--beat", "-c", "2", "-l", "INFO"],
                cwd=self.folder, env=self._environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self._workers.append(worker)
        return worker

    def log(self):
        return (self.folder / "worker.log").read_text()[-4000:]

    def mails_to(self, name):
        if not self.mails.exists():
            return 0
        return sum(file.read_text().count(f"To: {name}@example.com") for file in self.mails.iterdir())

    def kill(self, worker):
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait(30)

    def close(self):
        for worker in self._workers:
            if worker.poll() is None:
                self.kill(worker)


@pytest.fixture
def database():
    """A separate database for the project, on the server of the tests."""
    known = connection.settings_dict
    name = f"{NAME}_{known['NAME']}"[:60]
    address = {
        "host": known["HOST"],
        "port": known["PORT"],
        "user": known["USER"],
        "password": known["PASSWORD"],
    }
    server = psycopg.connect(dbname="postgres", autocommit=True, **{k: v for k, v in address.items() if v})
    databases.drop(server, name)
    server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    yield {"ENGINE": "django.db.backends.postgresql", "NAME": name} | {
        key.upper(): str(value) for key, value in address.items()
    }
    databases.drop(server, name)
    server.close()


@pytest.fixture
def project(tmp_path, database):
    project = Project(tmp_path, database)
    yield project
    project.close()


def test_a_fresh_project_delivers_buries_and_replays(project):
    assert "no issues" in project.manage("check")
    project.manage("migrate")

    (project.outside / "wait").touch()
    project.sign_up("ada")
    worker = project.start_worker()
    eventually((project.outside / "asked").exists, project.log)
    project.kill(worker)
    (project.outside / "wait").unlink()
    project.start_worker()
    eventually(lambda: project.mails_to("ada"), project.log, within=180)

    (project.outside / "refuse").touch()
    project.sign_up("bob")
    eventually(lambda: project.shell(DEAD_LETTERS) == "('signups.tasks.welcome', 'open')", project.log)
    (project.outside / "refuse").unlink()
    replayed = project.shell("""
        from django.contrib.auth.models import User
        from django.test import Client
        from django.urls import reverse
        from outbox.models import DeadLetter
        client = Client(SERVER_NAME="localhost")
        client.force_login(User.objects.create_superuser("root"))
        listing = reverse("admin:outbox_deadletter_changelist")
        ids = list(DeadLetter.objects.values_list("pk", flat=True))
        page = client.post(listing, {"action": "replay", "_selected_action": ids})
        form = {"ids": ids[0], "confirmed": "yes", "reason": "the mailbox exists now"}
        done = client.post(reverse("admin:outbox_deadletter_resolve", args=["replay"]), form, follow=True)
        print(page.status_code, done.status_code, "being replayed" in done.text)
    """)
    assert replayed == "200 200 True"
    eventually(lambda: project.shell(DEAD_LETTERS) == "('signups.tasks.welcome', 'recovered')", project.log)

    assert (project.mails_to("ada"), project.mails_to("bob")) == (1, 1)
    assert re.search(r"\b(\d+) of \1 ", project.manage("verify"))
