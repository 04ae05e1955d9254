"""
Commands that stop a running stack, show it, and remove its data. Standard library only: needs no packages.
"""

import contextlib
import os
import shutil
import signal
import time

from orderflow.stack.checkout import state
from orderflow.stack.checkout.folders import StackFolders
from orderflow.stack.problem import Problem

STOP_PATIENCE = 20.0


def down(folders: StackFolders) -> int:
    """
    Stop the running stack of this checkout and wait until it has ended.

    Raises:
        Problem: if it does not end.
    """
    run = state.running(folders)
    if run is None:
        print("Nothing is running here.")
        return 0
    if run.what != state.STACK:
        raise state.in_use(run)
    begun = time.monotonic()
    with contextlib.suppress(ProcessLookupError):
        os.kill(run.pid, signal.SIGTERM)
    while state.running(folders) is not None:
        if time.monotonic() - begun > STOP_PATIENCE:
            raise Problem(f"Process {run.pid} does not end. Send the signal once more: python3 run.py down")
        time.sleep(0.05)
    print(f"Stopped in {time.monotonic() - begun:.1f} s.")
    return 0


def status(folders: StackFolders) -> int:
    """Print what is running; the exit code is 0 if something is, otherwise 1."""
    run = state.running(folders)
    if run is None:
        print("Nothing is running here. Start with: python3 run.py")
        return 1
    condition = "ready" if run.ready else "starting"
    print(f"{run.what}, process {run.pid}, {condition}, for {time.time() - run.started_at:.0f} s  {run.url}")
    for name, process in run.processes.items():
        times = "once" if process["deaths"] == 1 else f"{process['deaths']} times"
        deaths = f"  died {times} in the last minute" if process["deaths"] else ""
        print(f"  {name:18} {process['state']:10} {process['pid'] or '':>8}{deaths}")
    return 0


def reset(folders: StackFolders) -> int:
    """
    Remove the private servers' data, the sandbox's ledgers, logs, passwords, and what Prometheus has stored.

    Raises:
        Problem: if something is running, or the files belong to another account.
    """
    if not folders.state.exists():
        print("There is nothing to remove.")
        return 0
    with state.hold(folders, "python3 run.py reset"), state.hold_monitoring(folders):
        servers = folders.servers.resolve()
        try:
            for path in (folders.logs, folders.sandbox, folders.monitoring, folders.targets):
                shutil.rmtree(path, ignore_errors=True)
            for file in (folders.secrets, folders.push_credentials, folders.ports):
                file.unlink(missing_ok=True)
            for child in servers.iterdir() if servers.is_dir() else ():
                if child.is_file():
                    child.unlink()
                elif child.name != "throwaway":  # tests may be running
                    shutil.rmtree(child)
        except OSError as error:
            raise Problem(
                f"{error.filename} cannot be removed: {error.strerror}. Run this as the account that made it."
            ) from error
    print("Removed the data. The next start begins with an empty database.")
    return 0
