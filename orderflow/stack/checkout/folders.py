"""The folders of a stack: `.orderflow` in the checkout, and server files where their account can reach them."""

import contextlib
import dataclasses
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from orderflow.stack.checkout import account
from orderflow.stack.problem import Problem

ROOT = Path(__file__).resolve().parents[3]
# Used when the checkout is in a folder that the servers' account may not enter, such as /root.
ELSEWHERE = Path("/var/lib")


@dataclasses.dataclass(frozen=True)
class StackFolders:
    """The paths of one stack. They are in the checkout, or in `kept_in` if that is given."""

    root: Path = ROOT
    kept_in: Path | None = None

    @property
    def state(self) -> Path:
        return self.kept_in or self.root / ".orderflow"

    @property
    def logs(self) -> Path:
        return self.state / "log"

    @property
    def secrets(self) -> Path:
        return self.state / "secrets.json"

    @property
    def push_credentials(self) -> Path:
        return self.state / "fcm.json"

    @property
    def ports(self) -> Path:
        return self.state / "ports.json"

    @property
    def run(self) -> Path:
        return self.state / "run.json"

    @property
    def lock(self) -> Path:
        return self.state / "lock"

    @property
    def targets(self) -> Path:
        """The processes list here where Prometheus finds their metrics."""
        return self.state / "targets"

    @property
    def monitoring_lock(self) -> Path:
        return self.state / "monitoring.lock"

    @property
    def sandbox(self) -> Path:
        return self.state / "sandbox"

    @property
    def clocks(self) -> Path:
        """A drill writes here how many seconds each process's clock is off."""
        return self.state / "clocks"

    @property
    def held(self) -> Path:
        """A process of which a file is here does not start before the file is removed."""
        return self.state / "held"

    @property
    def monitoring(self) -> Path:
        """The configuration and data of Prometheus and Alertmanager."""
        return self.state / "monitoring"

    @property
    def servers(self) -> Path:
        return self.state / "servers"

    def prepare(self) -> None:
        """
        Create the folders.

        Raises:
            Problem: if the checkout is not writable.
        """
        try:
            self.state.mkdir(exist_ok=True)
            if self.state.stat().st_uid == os.geteuid():
                # Traversable, because a server may run as another account; secret files protect themselves.
                self.state.chmod(0o711)
            for private in (self.logs, self.sandbox):
                private.mkdir(mode=0o700, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.state):
                pass
        except OSError as error:
            raise Problem(
                f"{self.state} is not writable: {error.strerror}. Free it, or remove it and run again."
            ) from error


@dataclasses.dataclass(frozen=True)
class ServersFolder:
    """
    A folder that the servers' account can reach: in the checkout, or elsewhere with a symbolic link to it.

    The account owns the content, but not the folder: root must not work in a folder that others may rearrange.
    """

    path: Path
    account: account.Account

    def reachable(self, base: Path, trees: Sequence[Path], *, key: str) -> Path:
        """
        Return a base under which the account can run what is in `trees`: `base` itself, or a copy that is made
        once per `key`.

        The trees, which are below `base`, are copied together because the programs find their libraries by
        relative paths.
        """
        if all(self.account.reaches(tree) for tree in trees):
            return base
        copy = self.path / "binaries" / hashlib.sha256(f"{base} {key}".encode()).hexdigest()[:12]
        if not copy.exists():
            half = copy.with_suffix(".half")
            shutil.rmtree(half, ignore_errors=True)
            for tree in trees:
                target = half / tree.relative_to(base)
                if tree.is_dir():
                    shutil.copytree(tree, target, symlinks=True, ignore=shutil.ignore_patterns("include"))
                else:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(tree, target)
            half.rename(copy)
        return copy

    @contextlib.contextmanager
    def throwaway(self) -> Iterator["ServersFolder"]:
        """
        Create a folder for servers that live as long as the block; remove the folders that killed runs left.
        """
        parent = self.path / "throwaway"
        _folder(parent, 0o711)
        for left in parent.iterdir():
            if not command_runs(left.name):
                shutil.rmtree(left, ignore_errors=True)
        path = parent / f"{os.getpid()}-{os.urandom(3).hex()}"
        _folder(path, 0o711)
        try:
            yield dataclasses.replace(self, path=path)
        finally:
            shutil.rmtree(path, ignore_errors=True)


def command_runs(name: str) -> bool:
    """Return whether the process that a throwaway folder is named after is still running."""
    try:
        os.kill(int(name.partition("-")[0]), 0)
    except ProcessLookupError:
        return False
    except (ValueError, PermissionError):
        return True
    return True


def servers_folder(folders: StackFolders, environment: Mapping[str, str]) -> ServersFolder:
    """
    Return the folder for the servers' files, and the account they run as.

    Raises:
        Problem: if there is no usable account, or no folder that it can reach.
    """
    place = folders.servers
    data = place / "postgres"
    owner = data.stat().st_uid if data.exists() else None
    chosen = account.choose(environment, owner=owner)
    if owner is not None and chosen.user_id is not None and owner != chosen.user_id:
        raise Problem(
            f"{data} does not belong to the account {chosen.name!r}. Start over with: python3 run.py reset"
        )
    try:
        if not place.exists():
            place.unlink(missing_ok=True)  # a symbolic link to a folder that no longer exists
            _folder(place, 0o711)
        if not chosen.reaches(place, os.X_OK) and not place.is_symlink():
            place.rmdir()
            elsewhere = ELSEWHERE / f"orderflow-{hashlib.sha256(str(folders.root).encode()).hexdigest()[:10]}"
            _folder(elsewhere, 0o711)
            place.symlink_to(elsewhere)
        return ServersFolder(place.resolve(), chosen)
    except OSError as error:
        raise Problem(
            f"There is no folder that the account {chosen.name!r} can use: {error.filename}: {error.strerror}. "
            "Move the checkout, or set DATABASE_URL and BROKER_URL to your own servers."
        ) from error


def _folder(path: Path, mode: int) -> None:
    path.mkdir(exist_ok=True)
    path.chmod(mode)
