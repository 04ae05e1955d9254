"""A project as docs/outbox.md makes it: the blocks of the document are its code."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from django.conf import settings
from django.db import connection
from psycopg import sql

from tests import databases
from tests.package.environments import Environment
from tests.processes import ROOT, eventually

DOCUMENT = ROOT / "docs" / "outbox.md"
BLOCK = re.compile(r'^```python title="(?P<path>[^"]+)"(?P<replace> replace)?\n(?P<text>.*?)^```$', re.M | re.S)
NAME = "fresh_project"

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

MAIL = """
if "MAILERS" in globals():  # since Django 6.1
    MAILERS = {{"default": {{"BACKEND": "outside.Outside", "OPTIONS": {{"file_path": {folder!r}}}}}}}
else:
    EMAIL_BACKEND, EMAIL_FILE_PATH = "outside.Outside", {folder!r}
"""

DEAD_LETTERS = """
from outbox.models import DeadLetter
print(*DeadLetter.objects.values_list("consumer", "resolution"))
"""

REPLAY_IN_THE_ADMIN = """
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from outbox.models import DeadLetter
client = Client(SERVER_NAME="localhost")
client.force_login(User.objects.create_superuser("root"))
listing = reverse("admin:outbox_deadletter_changelist")
ids = list(DeadLetter.objects.values_list("pk", flat=True))
pages = [listing, reverse("admin:outbox_deadletter_change", args=ids), reverse("admin:index")]
print(*[client.get(page).status_code for page in pages])
page = client.post(listing, {"action": "replay", "_selected_action": ids})
form = {"ids": ids[0], "confirmed": "yes", "reason": "the mailbox exists now"}
done = client.post(reverse("admin:outbox_deadletter_resolve", args=["replay"]), form, follow=True)
print(page.status_code, done.status_code, "being replayed" in done.text)
"""


class Project:
    """A project created by `startproject`, in its own environment."""

    def __init__(
        self, folder: Path, environment: Environment, database: Mapping[str, Any], broker_url: str | None = None
    ) -> None:
        self.folder, self.python = folder / "project", environment.python
        self.mails, self.outside = folder / "mails", folder / "outside"
        self.outside.mkdir(parents=True)
        self._environment = {
            "PATH": "/usr/bin:/bin", "BROKER_URL": broker_url or settings.BROKER_URL, "PYTHONUNBUFFERED": "1",
            "HOME": str(folder),
        }  # fmt: skip
        self._workers: list[subprocess.Popen[bytes]] = []
        self.folder.mkdir()
        self.run(self.python, "-m", "django", "startproject", "mysite", ".")
        self.manage("startapp", "signups")
        for block in BLOCK.finditer(DOCUMENT.read_text()):
            with (self.folder / block["path"]).open("w" if block["replace"] else "a") as file:
                file.write(block["text"])
        (self.folder / "outside.py").write_text(OUTSIDE.format(folder=str(self.outside)))
        with (self.folder / "mysite" / "settings.py").open("a") as file:
            file.write(f"DATABASES = {{'default': {dict(database)!r}}}\n")
            file.write(MAIL.format(folder=str(self.mails)))

    def run(self, *words: object, timeout: float = 240) -> str:
        """Run a command in the project; return its output."""
        done = subprocess.run(
            [str(word) for word in words], cwd=self.folder, env=self._environment, capture_output=True,
            text=True, timeout=timeout, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
        return done.stdout

    def manage(self, *words: str) -> str:
        """Run a management command; return its output."""
        return self.run(self.python, "manage.py", *words)

    def shell(self, code: str) -> str:
        """Run code in the project; return its output."""
        return self.manage("shell", "--no-imports", "-c", textwrap.dedent(code)).strip()

    def sign_up(self, name: str) -> None:
        """Ask their view to publish."""
        assert (
            self.shell(f"""
            from django.test import Client
            form = {{"name": "{name}", "email": "{name}@example.com"}}
            print(Client(SERVER_NAME="localhost").post("/sign-up/", form).status_code)
        """)
            == "201"
        )

    def start_worker(self) -> subprocess.Popen[bytes]:
        """Start their worker, with beat in it."""
        with (self.folder / "worker.log").open("ab") as log:
            worker = subprocess.Popen(
                [self.python, "-m", "celery", "-A", "mysite", "worker", "--beat", "-c", "2", "-l", "INFO"],
                cwd=self.folder, env=self._environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self._workers.append(worker)
        return worker

    def log(self) -> str:
        """The end of what their workers logged."""
        return (self.folder / "worker.log").read_text()[-4000:]

    def mails_to(self, name: str) -> int:
        """How many mails that person got."""
        if not self.mails.exists():
            return 0
        return sum(file.read_text().count(f"To: {name}@example.com") for file in self.mails.iterdir())

    def kill(self, worker: subprocess.Popen[bytes]) -> None:
        """End a worker and its children at once, as a lost machine would."""
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait(30)

    def close(self) -> None:
        """End what runs."""
        for worker in self._workers:
            if worker.poll() is None:
                self.kill(worker)


def install(project: Project) -> None:
    """Check the project, and make its tables."""
    assert "no issues" in project.manage("check")
    project.manage("migrate")
    project.manage("makemigrations", "outbox", "--check", "--dry-run")


def survives_a_killed_worker(project: Project) -> None:
    """What a worker was doing when it was killed is done by the next one, once."""
    (project.outside / "wait").touch()
    project.sign_up("ada")
    worker = project.start_worker()
    eventually((project.outside / "asked").exists, project.log)
    project.kill(worker)
    (project.outside / "wait").unlink()
    project.start_worker()
    eventually(lambda: project.mails_to("ada"), project.log, within=180)
    assert project.mails_to("ada") == 1


def buries_and_replays(project: Project) -> None:
    """What fails for good is a dead letter, and recovers when somebody replays it in the admin."""
    (project.outside / "refuse").touch()
    project.sign_up("bob")
    eventually(lambda: project.shell(DEAD_LETTERS) == "('signups.tasks.welcome', 'open')", project.log)
    (project.outside / "refuse").unlink()
    assert project.shell(REPLAY_IN_THE_ADMIN).splitlines() == ["200 200 200", "200 200 True"]
    eventually(lambda: project.shell(DEAD_LETTERS) == "('signups.tasks.welcome', 'recovered')", project.log)
    assert project.mails_to("bob") == 1


def verifies(project: Project) -> None:
    """Every invariant of the outbox holds."""
    assert re.search(r"\b(\d+) of \1 ", project.manage("verify"))


@contextmanager
def new_database() -> Iterator[dict[str, str]]:
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
