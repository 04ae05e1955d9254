"""Child processes that do not outlive the supervisor, and their identification."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

PIPE = subprocess.PIPE
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def start(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    log: Path | None,
    cwd: Path,
    death_signal: signal.Signals = signal.SIGKILL,
    run_as: Mapping[str, Any] | None = None,
    stdin: int = subprocess.DEVNULL,
) -> "subprocess.Popen[bytes]":
    """
    Start a process in its own session, with its output appended to `log` (None: discarded).

    Ctrl-C on the terminal reaches only the supervisor, which stops the others in order. If the supervisor is
    killed, the kernel sends `death_signal` (Linux; elsewhere the next start cleans up). Call it from the main
    thread: the kernel watches the thread that started the child, not its process.
    """
    with contextlib.ExitStack() as stack:
        output: Any = stack.enter_context(log.open("ab")) if log else subprocess.DEVNULL
        return subprocess.Popen(
            list(command),
            env=dict(environment),
            cwd=cwd,
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=dies_with_parent(death_signal),
            **(run_as or {}),
        )


def dies_with_parent(number: signal.Signals) -> Callable[[], None]:
    """Return the function that makes a child receive a signal when this process dies; it runs before `exec`."""
    parent = os.getpid()

    def before_exec() -> None:
        # Runs after the change of account, which would reset it.
        if _libc is not None:
            _libc.prctl(_PR_SET_PDEATHSIG, int(number))
            if os.getppid() != parent:
                os._exit(1)

    return before_exec


def end_group(leader: int) -> None:
    """Kill the processes that are left in a process's session, such as the pool of a killed worker."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def send(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    """Signal a child that may have ended already."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


def command_line(pid: int) -> str:
    """Return the command line of a running process, or an empty string if there is no such process."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except FileNotFoundError:
        if Path("/proc/self").exists():
            return ""
    except OSError:
        return ""
    answer = subprocess.run(
        ["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return answer.stdout.strip()


def children_of(parent: int) -> list[int]:
    """Return the ids of a process's direct children, oldest first; empty if it has ended."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=False)
    pairs = (line.split() for line in listed.stdout.splitlines())
    return sorted(int(pid) for pid, above in pairs if above == str(parent))
