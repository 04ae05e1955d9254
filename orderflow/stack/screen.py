"""The supervisor's output on the terminal, and the state that `status` reads."""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Iterator

from orderflow.stack.checkout import state
from orderflow.stack.checkout.folders import StackFolders
from orderflow.stack.problem import tail
from orderflow.stack.supervision import children
from orderflow.stack.supervision.supervisor import State, Watched


class Screen:
    """
    Prints the progress of the start and, later, what failed.

    While a foreground command uses the terminal, lines are held back.
    """

    def __init__(self, folders: StackFolders, run: state.Run) -> None:
        self._folders, self._run = folders, run
        self.started_at = run.started_at
        self._starting = True
        self._stopping_at = 0.0
        self._held: list[str] | None = None
        state.write(folders, run)

    def on_change(self, watched: Watched) -> None:
        """Record the new state of a process."""
        spec, process = watched.spec, watched.process
        if watched.state in (State.READY, State.DONE) and self._starting:
            self.print_line(f"  {self.since_start():4.1f} s  {spec.name}")
        elif watched.state is State.RESTARTING and watched.replaced_because:
            self.print_line(f"! {spec.name} is replaced, because {watched.replaced_because} (see {spec.log})")
        elif watched.state is State.RESTARTING and watched.deaths:
            self.print_line(f"! {spec.name} died (see {spec.log}) and is started again")
        elif watched.state is State.GIVEN_UP:
            self.print_line(
                f"! {spec.name} dies again and again and stays down. The end of {spec.log}:\n{tail(spec.log)}"
            )
        pid = process.pid if process and process.poll() is None else None
        entry = {
            "state": watched.state.value,
            "pid": pid,
            "command": children.command_line(pid) if pid else "",
            "deaths": len(watched.deaths),
        }
        self.update(processes={**self._run.processes, spec.name: entry})

    def ready(self, text: str) -> None:
        """Print that the stack is ready, and after how many seconds."""
        self._starting = False
        self.update(ready=True)
        self.print_line(f"{text} in {self.since_start():.1f} s")

    def update(self, **changes: object) -> None:
        """Change the state that `status` reads."""
        self._run = dataclasses.replace(self._run, **changes)  # type: ignore[arg-type]
        state.write(self._folders, self._run)

    def since_start(self) -> float:
        """Return the seconds since run.py was started."""
        return time.time() - self.started_at

    def print_line(self, text: str) -> None:
        """Print a line, or hold it back while a foreground command uses the terminal."""
        if self._held is not None:
            self._held.append(text)
            return
        with contextlib.suppress(OSError):  # a closed terminal must not prevent the shutdown
            print(text, flush=True)

    def stopping(self) -> None:
        """Print that the shutdown has begun."""
        self._stopping_at = time.monotonic()
        self.print_line(
            ("\n" if sys.stdout.isatty() else "") + "Stopping ..."
        )  # not on the line of the terminal's ^C

    @contextlib.contextmanager
    def timed_shutdown(self) -> Iterator[None]:
        """Print, at the end, how long the shutdown took."""
        try:
            yield
        finally:
            self.print_line(f"Stopped in {time.monotonic() - self._stopping_at:.1f} s")

    def hold(self) -> None:
        """Leave the terminal to a foreground command."""
        self._held = []

    def release(self) -> None:
        """Take the terminal back and print the lines that were held back."""
        held, self._held = self._held or [], None
        for text in held:
            self.print_line(text)
