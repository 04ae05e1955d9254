"""The command line of `python3 run.py`."""

import argparse
import errno
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from orderflow.stack import command_list
from orderflow.stack.checkout.folders import StackFolders
from orderflow.stack.commands import alerts, bench, control, drill, observe, runs
from orderflow.stack.problem import Problem
from orderflow.stack.supervision.supervisor import Interrupted

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
LEAST_ROOM = 1024 * 1024  # bytes; with less free space, a failed write counts as caused by the full disk
USAGE = """\
python3 run.py [--once] [--port N] [--orders N]   start everything, place demo orders, stay up until Ctrl-C
python3 run.py up [--port N]                      start everything, without the demo
python3 run.py down | status | reset              stop it; show its state; remove its data
python3 run.py observe [--port N]                 Prometheus and Alertmanager beside it, with our alerts
python3 run.py test [pytest arguments]            run the tests, on servers of their own
python3 run.py chaos [--orders N] [--seed N] ...  inject faults into a stack of its own, and check what was lost
python3 run.py alerts [--cases A,B] [--list] ...  prove the alerts: faults, a real Prometheus, and the runbooks
python3 run.py bench [scenario ...] [--quick]     measure it against common alternatives, on servers of its own
python3 run.py COMMAND [arguments]                run a command of manage.py
python3 run.py help [COMMAND]                     show this and all commands, or the help of one command

DATABASE_URL and BROKER_URL (redis://, rediss://, amqp://, amqps://) name your own servers, to use instead of
private ones. ORDERFLOW_SERVER_USER names the account for the private servers when root starts them.
WORKER_POOL (threads or prefork) and WORKER_THREADS choose how workers run tasks, instead of by the machine.
"""


OWN_WORDS = ("up", "down", "status", "reset", "observe", "test", "bench", "help")


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run one command and return its exit code. Problems that the user can solve are printed without traceback.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(StackFolders(), words)
    except Problem as problem:
        print(problem, file=sys.stderr)
        return problem.exit_code
    except (KeyboardInterrupt, Interrupted):
        return 130
    except BrokenPipeError:  # the reader of the output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        where = error.filename or full_disk(StackFolders())
        print(f"{where}: {error.strerror}. Free space or allow access, then run again.", file=sys.stderr)
        return 1


def full_disk(folders: StackFolders) -> Path:
    """Return the folder whose disk is full; the error of a failed write does not name it."""
    written = [folders.servers.resolve(), folders.state, Path(tempfile.gettempdir())]
    there = [folder for folder in written if folder.exists()]
    return next((folder for folder in there if _is_full(os.statvfs(folder))), folders.state)


def _is_full(disk: os.statvfs_result) -> bool:
    return disk.f_bavail * disk.f_frsize < LEAST_ROOM or (disk.f_files > 0 and disk.f_favail == 0)


def _dispatch(folders: StackFolders, words: list[str]) -> int:
    word, rest = (words[0], words[1:]) if words else ("", [])
    if _asks_for_help(word, rest):
        print(f"{USAGE}\nCommands:\n{command_list.listed(folders.root)}\nDjango's own commands work as well.")
        return 0
    if word in ("down", "status", "reset"):
        if rest:
            raise Problem(f"`{word}` takes no arguments; nothing was done.", exit_code=2)
        return {"down": control.down, "status": control.status, "reset": control.reset}[word](folders)
    if word == "test":
        return runs.tests(folders, os.environ, rest)
    if word == "bench":
        return bench.run(folders, os.environ, rest)
    if word == "chaos" and not drill.is_for_another_stack(rest):
        return drill.run(folders, os.environ, rest)
    if word == "observe":
        return observe.run(folders, os.environ, _start_request(words))
    if word == "alerts" and not alerts.only_asks(rest):
        return alerts.run(folders, os.environ, rest)
    if word == "up" or not word or word.startswith("-"):
        return runs.stack(folders, os.environ, _start_request(words))
    return runs.manage(folders, os.environ, words)


def _asks_for_help(word: str, rest: list[str]) -> bool:
    if word == "help":
        return not rest or rest[0] in OWN_WORDS
    wants_it = {"-h", "--help"} & {word, *rest}
    return bool(wants_it) and (word in ("up", "down", "status", "reset", "observe") or word.startswith("-"))


def _start_request(words: list[str]) -> runs.StartRequest:
    demo = words[:1] not in (["up"], ["observe"])
    parser = argparse.ArgumentParser(
        prog="python3 run.py" if demo else f"python3 run.py {words[0]}", usage=USAGE, add_help=False
    )
    parser.add_argument("--port", type=int)
    if demo:
        parser.add_argument("--once", action="store_true")
        parser.add_argument("--orders", type=int)
    return runs.StartRequest(demo=demo, **vars(parser.parse_args(words if demo else words[1:])))
