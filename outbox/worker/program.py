"""
The worker program: how one with threads stops.

Celery ends its pools in signal handlers, which interrupt the main loop anywhere: fine for children, which are
killed, but threads have to be waited for and their outcomes reported. So here a handler only says until when
running tasks may go on:

- SIGTERM: until they are finished, as in Celery.
- SIGQUIT, or SIGINT twice: for `worker_soft_shutdown_timeout`. What has not ended then is handed back to the
  broker.
- once more: no longer.

A process with a thread that hangs cannot end in the usual way, so it leaves without it.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from typing import Any

from billiard.common import REMAP_SIGTERM
from celery.apps import worker
from celery.platforms import EX_FAILURE

from outbox.worker.threads import TaskPool

_celery: Any = worker  # its handlers of signals are not in its stubs

ENDED_WITHIN = 0.5
"""Seconds for which the threads of a pool that has stopped are waited for."""


class Program(worker.Worker):  # type: ignore[misc]
    """Celery's worker program. Only with the pool of threads it differs from Celery's."""

    app: Any
    exitcode: int | None
    pool: Any

    def install_platform_tweaks(self, program: Any) -> None:
        super().install_platform_tweaks(program)
        if isinstance(self.pool, TaskPool):
            self._handle("SIGQUIT", self._hurry)
            self._handle("SIGINT", self._let_the_next_hurry)
            if REMAP_SIGTERM == "SIGQUIT":
                self._handle("SIGTERM", self._hurry)

    def _handle(self, name: str, callback: Any) -> None:
        _celery._shutdown_handler(self, sig=name, callback=callback, exitcode=EX_FAILURE, verbose=False)

    def _hurry(self, *_: Any) -> None:
        self.exitcode = EX_FAILURE
        wait = self.app.conf.worker_soft_shutdown_timeout or 0
        if self.pool.hurry(wait):
            _celery.safe_say(f"worker: Running tasks may go on for {wait:g} s", sys.__stdout__)
        else:
            _celery.safe_say("worker: Running tasks are handed back", sys.__stdout__)

    def _let_the_next_hurry(self, *_: Any) -> None:
        _celery.safe_say("worker: Stopping; Ctrl+C again hands running tasks back", sys.__stdout__)
        self._handle("SIGINT", self._hurry)

    def start(self) -> None:
        super().start()
        if isinstance(self.pool, TaskPool) and not self.pool.have_ended(within=ENDED_WITHIN):
            leave(self.exitcode or 0)


def leave(code: int) -> None:
    """End the process at once, although threads run. Their memory may still be in use, so nothing is freed."""
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)
