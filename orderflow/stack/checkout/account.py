"""
Which account runs the servers.

PostgreSQL refuses to run as root and wants an account that the system knows. So root steps down to another
account; where that is impossible, a private user namespace makes root, or a nameless user id, look like
`nobody`. No permission of anything that exists is changed: what the other account cannot reach is copied to
where it can (see `folders`).
"""

import dataclasses
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from orderflow.stack.problem import Problem

# `postgres` exists where the distribution's package is installed; `nobody` exists everywhere.
USUAL_ACCOUNTS = ("postgres", "nobody")
NOBODY = 65534
# util-linux' unshare changes credentials, which clears the wish to die with the parent: repeat it inside.
_REPEAT_THE_WISH = (
    "import ctypes, os, sys\n"
    "ctypes.CDLL(None).prctl(1, int(sys.argv[1]))\n"
    "os.getppid() == int(sys.argv[2]) or sys.exit(1)\n"
    "os.execv(sys.argv[3], sys.argv[3:])\n"
)


@dataclasses.dataclass(frozen=True)
class Account:
    """An account for the servers. `user_id` None means: the one that runs this."""

    user_id: int | None = None
    group_id: int | None = None
    name: str = ""
    in_namespace: bool = False

    @property
    def popen_options(self) -> Mapping[str, Any]:
        """What `subprocess` needs to start a process as this account."""
        if self.user_id is None:
            return {}
        return {"user": self.user_id, "group": self.group_id, "extra_groups": []}

    def wrap(self, command: list[str], *, dies_by: int = 9) -> list[str]:
        """Return the command as it has to be started."""
        if not self.in_namespace:
            return command
        inside = [sys.executable, "-I", "-S", "-c", _REPEAT_THE_WISH, str(dies_by), str(os.getpid()), *command]
        return [*_unshare(), *inside]

    def take(self, path: Path) -> None:
        """Make this account the owner of a new file or directory."""
        if self.user_id is not None and self.group_id is not None:
            os.chown(path, self.user_id, self.group_id)

    def reaches(self, path: Path, mode: int = os.R_OK | os.X_OK) -> bool:
        """Ask the kernel whether this account may use the path and pass through all folders above it."""
        if self.user_id is None:
            return os.access(path, mode)
        return _try_as(self, lambda: os.access(path, mode))


def choose(environment: Mapping[str, str], *, owner: int | None = None) -> Account:
    """
    Return the account for the servers; `owner` is who owns data that is there already.

    Raises:
        Problem: if the named account does not exist, or nothing works here.
    """
    if os.geteuid() != 0:
        return Account() if _has_entry(os.geteuid()) else _namespaced()
    named = environment.get("ORDERFLOW_SERVER_USER")
    if named and not _has_entry(named):
        raise Problem(
            f"There is no account {named!r} (ORDERFLOW_SERVER_USER). Name an existing one, other than root."
        )
    names = (named,) if named else USUAL_ACCOUNTS
    entries = [pwd.getpwnam(name) for name in names if _has_entry(name)]
    if owner and not named and _has_entry(owner):
        entries.insert(0, pwd.getpwuid(owner))
    for entry in entries:
        account = Account(user_id=entry.pw_uid, group_id=entry.pw_gid, name=entry.pw_name)
        if entry.pw_uid != 0 and _try_as(account, lambda: True):
            return account
    return _namespaced()


def _has_entry(account: int | str) -> bool:
    try:
        pwd.getpwuid(account) if isinstance(account, int) else pwd.getpwnam(account)
    except KeyError:
        return False
    return True


def _unshare() -> list[str]:
    return [shutil.which("unshare") or "/usr/bin/unshare", "-U", f"--map-user={NOBODY}", "--"]


def _namespaced() -> Account:
    try:
        works = subprocess.run([*_unshare(), "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        works = False
    if not works:
        raise Problem(
            "PostgreSQL runs neither as root nor under a user id without a name, and here it is impossible to "
            "change the account or to make a user namespace. Run as an ordinary user, or set DATABASE_URL."
        )
    return Account(in_namespace=True)


def _try_as(account: Account, question: Callable[[], bool]) -> bool:
    """Answer a yes-or-no question in a child process that has become this account."""
    assert account.user_id is not None
    assert account.group_id is not None
    child = os.fork()
    if child == 0:
        answer = 1
        try:
            os.setgroups([])
            os.setgid(account.group_id)
            os.setuid(account.user_id)
            answer = 0 if question() else 1
        finally:
            os._exit(answer)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
