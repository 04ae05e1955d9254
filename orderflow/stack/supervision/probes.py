"""Is it ready? Cheap questions, asked again and again until the answer is yes."""

import concurrent.futures
import http.client
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from orderflow.stack.supervision.process_specs import Process

# A proxy of the environment must not answer for a process on this machine.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


LONGEST_ANSWER = 30.0  # seconds that a page may take on a busy machine before it is asked for again


def answers(url: str, *, timeout: float = LONGEST_ANSWER) -> "Answers":
    """Ask a web address. "Who are you?" is an answer too: Flower gives it to everyone without a password."""
    return Answers(url, timeout)


class Answers:
    """
    Whether a page has been answered. Each call says so at once; the question itself waits beside it.

    A process that is merely slow is ready when its answer comes, however late: were it asked with less
    patience, it would never be, and would be started again for it.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self.url, self.timeout = url, timeout
        self._asked: concurrent.futures.Future[bool] | None = None
        self._of: object = None

    def __call__(self, process: Process) -> bool:
        if self._asked is None or self._of is not process or self._asked.done():
            answered = self._asked is not None and self._of is process and self._asked.result()
            self._asked, self._of = None, process
            if answered:
                return True
            self._asked = _beside(self._ask)
        return False

    def _ask(self) -> bool:
        try:
            with _opener.open(self.url, timeout=self.timeout):
                return True
        except urllib.error.HTTPError as error:
            with error:
                return error.code == 401
        except (OSError, http.client.HTTPException):
            return False


def _beside(ask: Callable[[], bool]) -> "concurrent.futures.Future[bool]":
    """Ask in a thread that keeps nobody from ending."""
    asked: concurrent.futures.Future[bool] = concurrent.futures.Future()
    threading.Thread(target=lambda: asked.set_result(ask()), daemon=True).start()
    return asked


class Says:
    """Wait for a text in a log, in what was written there since `listen`."""

    def __init__(self, text: str, log: Path) -> None:
        self.text, self.log, self.start = text.encode(), log, 0

    def listen(self) -> None:
        """Forget what an earlier process has said."""
        self.start = self.log.stat().st_size if self.log.exists() else 0

    def __call__(self, process: Process) -> bool:
        with self.log.open("rb") as file:
            file.seek(self.start)
            return self.text in file.read()


def has_ended(process: Process) -> bool:
    """A step is ready when it has ended well."""
    return process.poll() == 0
