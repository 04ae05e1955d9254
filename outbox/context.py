"""
The context of the current work: its request, the message that caused it, and its trace.

The HTTP middleware and `ConsumerTask` set it. `publisher.publish` reads it and stores it with every message, so
no function has to pass it along.
"""

from __future__ import annotations

import contextlib
import dataclasses
import uuid
from collections.abc import Iterator, Mapping
from contextvars import ContextVar


@dataclasses.dataclass(frozen=True, kw_only=True)
class Context:
    """
    Where the current work comes from.

    `causation_id` is empty when no message started the work, but a request, a command or a schedule.
    `actor` names the person or program that acts.
    """

    correlation_id: str
    causation_id: str = ""
    actor: str = ""
    task: str = ""
    trace: Mapping[str, str] = dataclasses.field(default_factory=dict)


_current: ContextVar[Context | None] = ContextVar("outbox_context", default=None)


def current() -> Context:
    """Return the current context; without one, a new context with a new correlation id."""
    return _current.get() or Context(correlation_id=str(uuid.uuid4()))


def current_or_none() -> Context | None:
    """Return the current context, or None if none is bound."""
    return _current.get()


@contextlib.contextmanager
def bind(context: Context) -> Iterator[Context]:
    """Make `context` the current one inside the block."""
    token = _current.set(context)
    try:
        yield context
    finally:
        _current.reset(token)


@contextlib.contextmanager
def ensure(*, actor: str = "") -> Iterator[Context]:
    """Make all work inside the block share one context: the current one, or a new one."""
    work = _current.get()
    with bind(work or Context(correlation_id=str(uuid.uuid4()), actor=actor)) as bound:
        yield bound
