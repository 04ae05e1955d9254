"""
What the overview shows to one reader: the parts that belong to models whose rows they may view.

Every part is read on its own. If the database fails, the page says so, and asks it nothing more.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from celery import current_app
from django.conf import settings
from django.db import Error as DatabaseError
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest

from orderflow import providers
from orderflow.ops.overview import causes, history, moment, servers, strip
from orderflow.ops.overview.causes import Causes
from orderflow.ops.overview.parts import Group, Part, State, summary, worst
from orderflow.ops.overview.plots import Plot
from orders.models import Order
from outbox.admin.parts import may_view
from outbox.models import DeadLetter, OutboxMessage, Verification

REFRESHED_EVERY = 10
"""Seconds between two refreshes by the script."""

Found = TypeVar("Found")

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class May:
    """What the reader may view."""

    orders: bool
    machinery: bool
    dead_letters: bool
    verifications: bool

    @classmethod
    def of(cls, request: HttpRequest) -> May:
        """Ask for the permissions of the models behind the parts."""
        return cls(
            orders=may_view(request, Order),
            machinery=may_view(request, OutboxMessage),
            dead_letters=may_view(request, DeadLetter),
            verifications=may_view(request, Verification),
        )

    @property
    def anything(self) -> bool:
        """Whether there is anything to show."""
        return any(dataclasses.astuple(self))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Overview:
    """The page."""

    may: May
    at: dt.datetime | None
    """By the clock of the database; None if it does not answer."""
    trouble: str
    """What is wrong with the database; empty if nothing is."""
    groups: Sequence[Group]
    was_restored: bool
    plots: Sequence[Plot]
    causes: Causes | None
    every: int
    """Seconds between two refreshes."""

    @property
    def summary(self) -> str:
        """The state of all parts in one sentence."""
        return summary(self.groups)

    @property
    def worst(self) -> State:
        """The state of the worst part."""
        return worst(self.groups)


def context(request: HttpRequest) -> dict[str, Any]:
    """Return the context of the page's templates. It replaces what would ask Redis while the page waits."""
    overview, known = read(request), servers.providers.read()
    refused = known.answer.refused if known and known.answer else {}
    restore = {} if overview.was_restored else {"database_restore": None}
    return {"overview": overview, "credentials_refused": refused, **restore}


def read(request: HttpRequest) -> Overview:
    """Read everything that the reader may view; see `docs/operations.md` for what the parts mean."""
    may, database = May.of(request), _Database()
    if may.machinery:  # asked first, so that the answers arrive while the database is asked
        servers.broker.begin()
        servers.providers.begin()
    now = database.read(lambda: moment.read(machinery=may.machinery, verifications=may.verifications))
    plots = (
        database.read(
            lambda: history.read(
                now.at, orders=may.orders, oldest_due=may.machinery, dead_letters=may.dead_letters
            )
        )
        if now
        else None
    )
    largest = database.read(causes.read) if may.dead_letters else None
    groups = _groups(may, database, now)
    return Overview(
        may=may,
        at=now.at if now else None,
        trouble=database.trouble,
        groups=[_linked(group) for group in groups],
        was_restored=bool(now and now.was_restored),
        plots=plots or [],
        causes=largest,
        every=REFRESHED_EVERY,
    )


def _groups(may: May, database: _Database, now: moment.Moment | None) -> list[Group]:
    verdict = [strip.verification(now)] if may.verifications else []
    groups = [Group(name="System", parts=verdict)] if verdict else []
    if may.machinery:
        known, running = servers.broker.read(), now.running if now else None
        parts: list[Part] = [
            strip.database(database.milliseconds, database.trouble),
            strip.broker(known, pending=servers.broker.pending_seconds),
        ]
        parts.append(strip.oldest_due(now.oldest_due_seconds if now else None))
        parts += strip.of_processes(running)
        parts.append(strip.sweeps(now.tasks if now else None))
        parts += verdict
        groups = [
            Group(name="System", parts=parts),
            Group(name="Queues", parts=list(strip.queues(current_app.amqp.queues, known, running))),
            Group(name="Providers", parts=list(strip.breakers(providers.NAMES, servers.providers.read()))),
        ]
    return groups


def _linked(group: Group) -> Group:
    """The group with the addresses of runbooks."""
    return dataclasses.replace(group, parts=[_with_links(part) for part in group.parts])


def _with_links(part: Part) -> Part:
    """The part with the address of its runbook, if it needs one and there is one."""
    if not (part.state.needs_attention and part.runbook and settings.RUNBOOKS_URL):
        return part
    return dataclasses.replace(part, runbook_url=f"{settings.RUNBOOKS_URL.rstrip('/')}/{part.runbook}.md")


class _Database:
    """Reads one part after the other, until the database fails."""

    def __init__(self) -> None:
        self.trouble = ""
        self.milliseconds: float | None = None

    def read(self, part: Callable[[], Found]) -> Found | None:
        """Return what `part` reads; None if the database fails, or has failed before."""
        if self.trouble:
            return None
        began = time.perf_counter()
        try:
            found = part()
        except DatabaseError as error:
            _logger.warning("the overview could not be read from the database", exc_info=True)
            answers = not isinstance(error, OperationalError | InterfaceError)
            self.trouble = f"refused a query ({type(error).__name__})" if answers else "does not answer"
            return None
        if self.milliseconds is None:
            self.milliseconds = 1000 * (time.perf_counter() - began)
        return found
