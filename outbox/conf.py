"""
The settings of the outbox. Each is read from Django's settings as `OUTBOX_<NAME>` when it is used.

`settings.RETENTION_DAYS` is Django's `OUTBOX_RETENTION_DAYS`, or the default below.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings as django_settings

PREFIX = "OUTBOX_"


class Settings:
    """All settings, with their defaults."""

    RETENTION_DAYS: int = 30
    """Days for which delivered messages and the records of handled ones are kept, at least."""

    RELAY_QUEUE: str = "relay"
    """The queue of the relay's tasks (see `schedule`). A worker that consumes it also listens for commits, so
    that the relay starts within milliseconds instead of at the next tick."""

    CHAIN_INLINE_SECONDS: float = 1.0
    """Seconds after a delivery in which a chain may continue in the same process, as long as its next link
    belongs to the same pool. Later it continues through the broker. 0: always through the broker. Together with
    the longest step it must stay below the soft time limit."""

    PROJECT_PACKAGES: tuple[str, ...] = ()
    """Top-level packages of the project. The site of a failure is the innermost frame in one of them."""

    BREAKER_FACTORY: str = "outbox.resilience.always_closed"
    """Dotted path of a function that takes a provider's name and returns a `resilience.Breaker`. The default
    never opens."""

    COMMAND: str = "python manage.py"
    """How commands begin in what pages and commands tell people to type."""

    def __getattribute__(self, name: str) -> Any:
        default = super().__getattribute__(name)
        return getattr(django_settings, PREFIX + name, default) if name.isupper() else default


settings = Settings()
