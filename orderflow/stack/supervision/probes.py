"""Readiness probes: cheap checks that are repeated until they succeed."""

import concurrent.futures
import http.client
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from orderflow.stack.supervision.process_specs import Process

# A proxy in the environment must not answer for a process on this machine.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


LONGEST_ANSWER = 30.0  # seconds that a response may take on a busy machine before the request is repeated


def answers(url: str, *, timeout: float = LONGEST_ANSWER) -> "Answers":
    """Probe a URL. A 401 response counts as ready: Flower sends it to every request without a password."""
    return Answers(url, timeout)


class Answers:
    """
    Whether a URL has responded. A call returns at once; the request itself runs in a thread.

    A slow process is ready when its response arrives, however late. With a short timeout it would never be
    ready and would be restarted.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self.url, self.timeout = url, timeout
        self._request: concurrent.futures.Future[bool] | None = None
        self._process: object = None

    def __call__(self, process: Process) -> bool:
        if self._request is None or self._process is not process or self._request.done():
            answered = self._request is not None and self._process is process and self._request.result()
            self._request, self._process = None, process
            if answered:
                return True
            self._request = _in_background(self._send_request)
        return False

    def _send_request(self) -> bool:
        try:
            with _opener.open(self.url, timeout=self.timeout):
                return True
        except urllib.error.HTTPError as error:
            with error:
                return error.code == 401
        except (OSError, http.client.HTTPException):
            return False


def _in_background(send_request: Callable[[], bool]) -> "concurrent.futures.Future[bool]":
    """Run the request in a daemon thread, which does not delay the end of the process."""
    request: concurrent.futures.Future[bool] = concurrent.futures.Future()
    threading.Thread(target=lambda: request.set_result(send_request()), daemon=True).start()
    return request


class LogContains:
    """Wait for a text in the part of a log that was written since `skip_existing`."""

    def __init__(self, text: str, log: Path) -> None:
        self.text, self.log, self.start = text.encode(), log, 0

    def skip_existing(self) -> None:
        """Ignore what an earlier process wrote."""
        self.start = self.log.stat().st_size if self.log.exists() else 0

    def __call__(self, process: Process) -> bool:
        with self.log.open("rb") as file:
            file.seek(self.start)
            return self.text in file.read()


def has_ended(process: Process) -> bool:
    """Return whether a step has ended successfully."""
    return process.poll() == 0
