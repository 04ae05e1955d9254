"""
The work at hand: which customer request it belongs to, which message caused it, which trace it is in.

Set by the HTTP middleware and by `ConsumerTask`; read by `publisher.publish`, so that every message
says where it comes from without anybody passing it along.
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
    Where the work at hand comes from.

    `causation_id` is empty when a customer's request, a command or a clock started the work, and no
    message did. `actor` names the person or program that acts.
    """

    correlation_id: str
    causation_id: str = ""
    actor: str = ""
    task: str = ""
    trace: Mapping[str, str] = dataclasses.field(default_factory=dict)


_current: ContextVar[Context | None] = ContextVar("outbox_context", default=None)


def current() -> Context:
    """The context of the work at hand; a fresh correlation id when nobody has bound one."""
    return _current.get() or Context(correlation_id=str(uuid.uuid4()))


def current_or_none() -> Context | None:
    """The context of the work at hand, or None when nobody has bound one."""
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
    """Make sure that all work inside the block shares one context: the current one, or a fresh one."""
    work = _current.get()
    with bind(work or Context(correlation_id=str(uuid.uuid4()), actor=actor)) as bound:
        yield bound
