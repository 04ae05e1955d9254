"""
Password hashing that leaves the processor to orders.

Hashing a password takes a core for a quarter of a second, and anonymous clients can trigger it. One thread of a
process does all hashing, with a lower priority than those that accept orders.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from django.contrib.auth import hashers

NICENESS = 10
"""The niceness of the hashing thread: on a busy processor it gets about a tenth of what others get."""


class QuietPBKDF2PasswordHasher(hashers.PBKDF2PasswordHasher):
    """Django's default hasher, in one thread of low priority; the hashes are the same."""

    def encode(self, password: str, salt: str, iterations: int | None = None) -> str:
        if threading.current_thread().name.startswith(_NAME):
            return super().encode(password, salt, iterations)
        return _lane().submit(super().encode, password, salt, iterations).result()


_NAME = "password-hashing"


@functools.cache
def _lane() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix=_NAME, initializer=_step_back)


def _step_back() -> None:
    # Linux has a priority per thread; elsewhere it would be that of the whole process.
    if sys.platform == "linux":
        # Only root may lower the value again, so a process with this niceness keeps it.
        niceness = max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0))
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)


# Threads do not survive a fork, such as that of gunicorn's workers.
os.register_at_fork(after_in_child=_lane.cache_clear)
