"""Is it ready? Cheap questions, asked again and again until the answer is yes."""

import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from .units import Process

# A proxy of the environment must not answer for a process on this machine.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def answers(url: str, *, timeout: float = 0.3) -> Callable[[Process], bool]:
    """Ask a web address. "Who are you?" is an answer too: Flower gives it to everyone without a password."""

    def probe(process: Process) -> bool:
        try:
            with _opener.open(url, timeout=timeout):
                return True
        except urllib.error.HTTPError as error:
            with error:
                return error.code == 401
        except OSError:
            return False

    return probe


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
