"""
The `celery` command, which loads only the subcommand that is used: `python -m outbox -A mysite worker …`.

`celery` first imports all its subcommands, and those of installed packages: an interactive shell and, with
Flower, a web server. That is 20 MB of each worker and a third of its start. Subcommands and options are the
same; those that are not in `COMMANDS`, and options before the subcommand other than `-A`, are left to `celery`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, NoReturn

from outbox import lean_imports

COMMANDS: Mapping[str, tuple[str, str]] = {
    "beat": ("celery.bin.beat", "beat"),
    "control": ("celery.bin.control", "control"),
    "inspect": ("celery.bin.control", "inspect"),
    "status": ("celery.bin.control", "status"),
    "worker": ("celery.bin.worker", "worker"),
}
"""The subcommands of processes and of their health checks: the module and name of each."""

FORMATS = ("yaml", "msgpack")
"""Packages for formats of messages; Celery loads each that is installed."""


def main() -> None:
    """Run a subcommand of Celery, and end the process."""
    arguments = sys.argv[1:]
    sys.argv[:1] = ["-m", "outbox"]  # a worker that is told to restart (SIGHUP) runs Python with these
    application, name, options = split(arguments)
    if not application or {"-D", "--detach"} & set(options):
        _run_celery(arguments)
    from celery import maybe_patch_concurrency

    maybe_patch_concurrency(["celery", *arguments])
    with lean_imports.without(*_unused(options)):
        for looking in ("celery.bootsteps", "celery.utils.debug", "kombu.serialization"):
            import_module(looking)
        from celery.app.utils import find_app
        from celery.bin.base import CLIContext

        module, function = COMMANDS[name]
        command: Any = getattr(import_module(module), function)
    try:
        app = find_app(application)
    except Exception:
        _run_celery(arguments)  # it reports the reason
    _register_formats(app)
    if app.user_options:
        _run_celery(arguments)  # a project's own options
    command.main(
        args=list(options),
        prog_name=f"celery {name}",
        obj=CLIContext(app=app, no_color="NO_COLOR" in os.environ, workdir=None),
        auto_envvar_prefix=f"CELERY_{name.upper()}",
    )


def split(arguments: Sequence[str]) -> tuple[str, str, Sequence[str]]:
    """Return the application, the subcommand and its options; empty if they must be left to `celery`."""
    first, *rest = arguments or [""]
    if first.startswith("--app="):
        rest = [first.removeprefix("--app="), *rest]
    elif first not in ("-A", "--app"):
        return "", "", ()
    if len(rest) < 2 or rest[1] not in COMMANDS:
        return "", "", ()
    return rest[0], rest[1], rest[2:]


def _unused(options: Sequence[str]) -> Sequence[str]:
    """Packages that Celery looks for: for colours, for `inspect memdump`, formats and pools of greenlets."""
    greenlets = any(pool in option for option in options for pool in ("gevent", "eventlet"))
    unused = ("pygments", "psutil", *FORMATS)
    return unused if greenlets else (*unused, "greenlet")


def _register_formats(app: Any) -> None:
    """Let the application use the formats of messages that it names, as Celery would."""
    from kombu import serialization

    conf = app.conf
    named = [*(conf.accept_content or ()), *(conf.result_accept_content or ())]
    named += [conf.task_serializer, conf.result_serializer, conf.event_serializer]
    for name, register in (("yaml", serialization.register_yaml), ("msgpack", serialization.register_msgpack)):
        if any(name in str(each) for each in named):
            register()


def _run_celery(arguments: Sequence[str]) -> NoReturn:
    from celery.__main__ import main as celery

    sys.argv = ["celery", *arguments]
    celery()
    sys.exit()


if __name__ == "__main__":
    main()
