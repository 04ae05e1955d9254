"""
The system account that runs the servers.

PostgreSQL refuses to run as root and needs an account that the system knows. Root therefore switches to
another account. Where that is impossible, a private user namespace maps root, or a user id without a name, to
`nobody`. Permissions of existing files are not changed: files that the account cannot reach are copied to a
place where it can (see `folders`).
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
# util-linux' unshare changes credentials, which clears the parent-death signal: set it again inside.
_REPEAT_THE_WISH = (
    "import ctypes, os, sys\n"
    "ctypes.CDLL(None).prctl(1, int(sys.argv[1]))\n"
    "os.getppid() == int(sys.argv[2]) or sys.exit(1)\n"
    "os.execv(sys.argv[3], sys.argv[3:])\n"
)


@dataclasses.dataclass(frozen=True)
class Account:
    """An account for the servers. `user_id` None: the current account."""

    user_id: int | None = None
    group_id: int | None = None
    name: str = ""
    in_namespace: bool = False

    @property
    def popen_options(self) -> Mapping[str, Any]:
        """The options that make `subprocess` start a process as this account."""
        if self.user_id is None:
            return {}
        return {"user": self.user_id, "group": self.group_id, "extra_groups": []}

    def wrap(self, command: list[str], *, death_signal: int = 9) -> list[str]:
        """Return the command line that starts the command as this account."""
        if not self.in_namespace:
            return command
        inside = [
            sys.executable,
            "-I",
            "-S",
            "-c",
            _REPEAT_THE_WISH,
            str(death_signal),
            str(os.getpid()),
            *command,
        ]
        return [*_unshare(), *inside]

    def take(self, path: Path) -> None:
        """Make this account the owner of a new file or directory."""
        if self.user_id is not None and self.group_id is not None:
            os.chown(path, self.user_id, self.group_id)

    def reaches(self, path: Path, mode: int = os.R_OK | os.X_OK) -> bool:
        """
        Return whether this account may use the path and traverse all folders above it, as the kernel sees it.
        """
        if self.user_id is None:
            return os.access(path, mode)
        return _try_as(self, lambda: os.access(path, mode))


def choose(environment: Mapping[str, str], *, owner: int | None = None) -> Account:
    """
    Return the account for the servers; `owner` is the owner of existing data.

    Raises:
        Problem: if the named account does not exist, or no account can be used.
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
            "PostgreSQL does not run as root or under a user id without a name, and here neither changing the "
            "account nor creating a user namespace is possible. Run as an ordinary user, or set DATABASE_URL."
        )
    return Account(in_namespace=True)


def _try_as(account: Account, question: Callable[[], bool]) -> bool:
    """Evaluate a yes-or-no question in a child process that has switched to this account."""
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
