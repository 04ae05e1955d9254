"""The sections that OrderFlow adds to `outbox_status`: breakers, and providers that refuse our settings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from outbox import status

if TYPE_CHECKING:
    from rich.text import Text


def connect() -> None:
    """Add the sections."""
    status.add(
        status.Section("breakers", _breakers, _of_breakers),
        status.Section("credentials_refused", _credentials, _of_credentials),
    )


def _breakers() -> dict[str, dict[str, Any]]:
    from orderflow.shared_state import breakers  # only the command and the pages show them

    return breakers.states()


def _credentials() -> dict[str, str]:
    from orderflow.shared_state import credentials

    return credentials.refused()


def _of_breakers(found: dict[str, dict[str, Any]]) -> Iterator[tuple[str, Text]]:
    for name, breaker in found.items():
        yield f"breaker {name}", _state(breaker)


def _state(breaker: dict[str, Any]) -> Text:
    from rich.text import Text  # only commands draw tables

    if breaker["state"] == "closed":
        return Text("closed")
    if breaker["state"] == "unknown":
        return Text("unknown: Redis does not respond, and each process has its own", style="bold red")
    since, probe = breaker["open_seconds"], breaker["next_probe_seconds"]
    next_one = f"next probe in {probe:g} s" if probe else "the next call is a probe"
    return Text(
        f"{breaker['state']} for {since:g} s, {breaker['waiting']} waiting, {next_one}", style="bold red"
    )


def _of_credentials(found: dict[str, str]) -> Iterator[tuple[str, Text]]:
    from rich.text import Text

    for name, because in found.items():
        yield f"settings of {name}", Text(because)
