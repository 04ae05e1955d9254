"""Problems that the user at the terminal can solve: a sentence instead of a traceback."""

from pathlib import Path

ALREADY_RUNNING = 3


class Problem(Exception):
    """
    A problem and what to do about it.

    `log` adds the end of a process's log to the text. `exit_code` is the exit code of the command.
    """

    def __init__(self, text: str, *, log: Path | None = None, exit_code: int = 1) -> None:
        end = tail(log) if log else ""
        super().__init__(f"{text}\nThe end of {log}:\n{end}" if end else text)
        self.exit_code = exit_code


def tail(log: Path, lines: int = 15) -> str:
    """Return the last lines of a log, indented, or an empty string if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - 16_384))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(f"    {line}" for line in text.splitlines()[-lines:])
