"""
Password hashing that leaves the processor to orders.

Hashing a password takes a core for a quarter of a second, and anonymous clients can ask for it. All hashing of
a process is done by one thread, of a lower priority than those that take orders.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from django.contrib.auth import hashers

NICENESS = 10
"""How much less of a busy processor the hashing thread gets: about a tenth of what others do."""


class QuietPBKDF2PasswordHasher(hashers.PBKDF2PasswordHasher):
    """Django's default, in one thread of low priority; its hashes are Django's."""

    def encode(self, password: str, salt: str, iterations: int | None = None) -> str:
        if threading.current_thread().name.startswith(_NAME):
            return super().encode(password, salt, iterations)
        return _lane().submit(super().encode, password, salt, iterations).result()


_NAME = "password-hashing"


@functools.cache
def _lane() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix=_NAME, initializer=_step_back)


def _step_back() -> None:
    # Linux has a priority for each thread; elsewhere it would be the whole process's.
    if sys.platform == "linux":
        # Nobody but root may raise it again, so a process that is as nice already stays as it is.
        niceness = max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0))
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)


# Threads do not survive a fork, as of gunicorn's workers.
os.register_at_fork(after_in_child=_lane.cache_clear)
