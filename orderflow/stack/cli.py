"""`python3 run.py <word>`: what each word does."""

import argparse
import errno
import os
import sys
from collections.abc import Sequence

from . import bench, control, drill, runs
from .homes import Home
from .problem import Problem
from .supervisor import Interrupted

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
USAGE = """\
python3 run.py [--once] [--port N] [--orders N]   start everything, place demo orders, stay up until Ctrl-C
python3 run.py up [--port N]                      start everything, without the demo
python3 run.py down | status | reset              stop it; look at it; remove its data
python3 run.py test [pytest arguments]            run the tests, on servers of their own
python3 run.py chaos [--orders N] [--seed N] ...  break a stack of its own on purpose, and see what is lost
python3 run.py bench [scenario ...] [--quick]     measure it against what people do today, on servers of its own
python3 run.py COMMAND [arguments]                run a command of manage.py; `help` lists them

DATABASE_URL and BROKER_URL (redis://, rediss://, amqp://, amqps://) name servers of yours to use instead of
private ones. ORDERFLOW_SERVER_USER names the account for the private servers when root starts them.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. What the user can mend is told in a sentence."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(Home(), words)
    except Problem as problem:
        print(problem, file=sys.stderr)
        return problem.exit_code
    except (KeyboardInterrupt, Interrupted):
        return 130
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        print(
            f"{error.filename or 'The disk'}: {error.strerror}. Free or open it, then run again.",
            file=sys.stderr,
        )
        return 1


def _dispatch(home: Home, words: list[str]) -> int:
    word, rest = (words[0], words[1:]) if words else ("", [])
    if word in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    if word in ("down", "status", "reset"):
        return {"down": control.down, "status": control.status, "reset": control.reset}[word](home)
    if word == "test":
        return runs.tests(home, os.environ, rest)
    if word == "bench":
        return bench.run(home, os.environ, rest)
    if word == "chaos" and not drill.is_for_another_stack(rest):
        return drill.run(home, os.environ, rest)
    if word == "up" or not word or word.startswith("-"):
        return runs.stack(home, os.environ, _wish(words))
    return runs.manage(home, os.environ, words)


def _wish(words: list[str]) -> runs.Wish:
    demo = words[:1] != ["up"]
    parser = argparse.ArgumentParser(
        prog="python3 run.py" if demo else "python3 run.py up", usage=USAGE, add_help=False
    )
    parser.add_argument("--port", type=int)
    if demo:
        parser.add_argument("--once", action="store_true")
        parser.add_argument("--orders", type=int)
    return runs.Wish(demo=demo, **vars(parser.parse_args(words if demo else words[1:])))
