"""
Validates the control commands of a worker, and the logical clock that commands and replies carry.

Anybody who may write to the broker may send any command that Celery knows. Commands are ignored if they contain
something that no command needs, or something that would disable a worker later: Celery accepts an invalid limit
and fails on it with the next task.
"""

from __future__ import annotations

import functools
import json
import logging
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from celery.app import control
from kombu import pidbox
from kombu.clocks import LamportClock

from outbox.database import storable

LATEST = 2**53
"""The latest clock value that is accepted: a million commands a second take 285 years to reach it. With a value
that brokers and JSON cannot carry, 2**63 for RabbitMQ, a worker could not reply to any command."""

LONGEST_COMMAND = 64 * 1024
"""Maximum length of a command in JSON, in characters. The longest real ones name some hundreds of tasks."""

LONGEST_NAME = 255
"""Maximum length of patterns, task ids and other names, in characters."""

LARGEST_POOL = 256
"""Maximum number of processes that one command may add to a pool or remove from it."""

LONGEST_LIMIT = 86_400
"""The longest time limit, in seconds."""

RATE = re.compile(r"\d{1,9}(\.\d{1,9})?(/[smh])?")

logger = logging.getLogger(__name__)


class Refused(ValueError):
    """A control command is invalid, or asks for something that no operator needs."""


class BoundedClock(LamportClock):
    """Celery's logical clock, which ignores impossible times."""

    def adjust(self, other: Any) -> int:
        """Continue after `other` if it is a valid time, otherwise after the last time."""
        if type(other) is not int or not 0 <= other < LATEST:
            return self.forward()
        return super().adjust(other)


class GuardedNode(pidbox.Node):
    """
    Receives control commands and ignores invalid ones.

    Celery would reopen its channel after an error, which ends a worker on Redis while it reads from the old
    one.
    """

    mailbox: Any
    state: Any

    def handle_message(self, body: Any, message: Any = None) -> Any:
        try:
            check(body, replies=self.mailbox.reply_exchange.name, queues=self.state.app.amqp.queues)
            return super().handle_message(body, message)
        except Refused as refused:
            logger.warning("Ignored a control command: %s", refused)
        except Exception as unreadable:
            logger.warning("Ignored a control command that cannot be read: %s", type(unreadable).__name__)
        return None


class Mailbox(pidbox.Mailbox):
    """Sends and receives control commands and replies."""

    node_cls = GuardedNode

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "clock": BoundedClock()})  # type: ignore[misc]


class Control(control.Control):
    """Celery's remote control with the guarded mailbox."""

    Mailbox = Mailbox


def check(body: Any, *, replies: str, queues: Mapping[str, Any]) -> None:
    """
    Check that a command is valid and that the worker can continue to work after it.

    `replies` is the exchange for replies, `queues` are the existing queues. The error quotes nothing of the
    command.

    Raises:
        Refused: if the command is invalid or harmful.
    """
    if not isinstance(body, dict) or not _is_name(body.get("method")):
        raise Refused("it has no method")
    if len(json.dumps(body, default=str)) > LONGEST_COMMAND:
        raise Refused("it is too long")
    arguments, destination = body.get("arguments"), body.get("destination")
    if not isinstance(arguments, dict | None):
        raise Refused("its arguments are not a mapping")
    if not isinstance(destination, list | tuple | None) or not all(map(_is_name, destination or ())):
        raise Refused("its destination is not a list of names")
    if not _is_pattern(body.get("pattern"), body.get("matcher")):
        raise Refused(
            "its pattern is not a glob; regular expressions are not allowed, as they may take for ever"
        )
    if not _is_reply(body.get("reply_to"), body.get("ticket"), replies):
        raise Refused("its reply would go to an unknown address")
    _check_arguments(body["method"], arguments or {}, queues)


def _check_arguments(method: str, arguments: Mapping[str, Any], queues: Mapping[str, Any]) -> None:
    kinds = ARGUMENTS.get(method, {})
    for name, is_valid in kinds.items():
        if arguments.get(name) is not None and not is_valid(arguments[name]):
            raise Refused(f"{method} with an invalid {name}")
    if method in OF_QUEUES:
        queue = arguments.get("queue")
        others = {name for name, value in arguments.items() if value is not None} - {"queue"}
        # Celery's own commands always contain the type of an exchange; the worker uses it for new queues only.
        if arguments.get("exchange_type") == "direct":
            others.discard("exchange_type")
        if not _is_name(queue) or queue not in queues or others:
            raise Refused(f"{method} with an unknown queue, or with other options for a queue")


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_NAME and storable.is_text(value)


def _is_names(value: Any) -> bool:
    return _is_name(value) or (isinstance(value, list | tuple) and all(map(_is_name, value)))


def _is_stamps(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_name, value)) and all(map(_is_names, value.values()))
    return isinstance(value, list) and all(_is_name(each) and each.count("=") == 1 for each in value)


def _is_pattern(pattern: Any, matcher: Any) -> bool:
    return pattern is None or (_is_name(pattern) and matcher in ("glob", None))


def _is_reply(reply_to: Any, ticket: Any, replies: str) -> bool:
    if ticket is not None and not _is_name(ticket):
        return False
    if reply_to is None:
        return True
    return (
        isinstance(reply_to, dict)
        and reply_to.get("exchange") == replies
        and _is_name(reply_to.get("routing_key"))
    )


def _is_rate(value: Any) -> bool:
    return bool(RATE.fullmatch(value)) if isinstance(value, str) else _is_number(value, most=10**9)


def _is_number(value: Any, *, most: float, least: float = 0) -> bool:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return known and least <= value <= most and math.isfinite(value)


def _is_size(value: Any) -> bool:
    """Whether a pool may grow or shrink by this number; a worker would start any number of processes."""
    return type(value) is int and 0 <= value <= LARGEST_POOL


_is_limit = functools.partial(_is_number, most=LONGEST_LIMIT, least=1)

OF_QUEUES = ("add_consumer", "cancel_consumer")

ARGUMENTS: Mapping[str, Mapping[str, Callable[[Any], bool]]] = {
    "autoscale": {"max": _is_size, "min": _is_size},
    "pool_grow": {"n": _is_size},
    "pool_shrink": {"n": _is_size},
    "query_task": {"ids": _is_names},
    "rate_limit": {"task_name": _is_name, "rate_limit": _is_rate},
    "revoke": {"task_id": _is_names, "signal": _is_name},
    "revoke_by_stamped_headers": {"headers": _is_stamps, "signal": _is_name},
    "terminate": {"task_id": _is_names, "signal": _is_name},
    "time_limit": {"task_name": _is_name, "hard": _is_limit, "soft": _is_limit},
}
"""The arguments of commands that change a worker, with a validator for each."""
