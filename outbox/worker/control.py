"""
Control commands that a worker takes, and the logical clock that they and their answers carry.

Whoever may write to the broker may send any command that Celery knows. What is left out here is what no command
needs, and what would keep a worker from working long after it was read: Celery sets a limit first, and finds
out with the next task that it is none.
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
"""The latest time of a clock that is believed: counting a million commands a second takes 285 years to it. What
brokers and JSON cannot carry any more, which is 2**63 for RabbitMQ, would end every answer of a worker."""

LONGEST_COMMAND = 64 * 1024
"""Characters of a command in JSON. The longest that anybody sends names some hundreds of tasks."""

LONGEST_NAME = 255
"""Characters of a pattern for the names of workers, of a task's id and of other names."""

LARGEST_POOL = 256
"""Processes that one command may add to a pool, or take from it."""

LONGEST_LIMIT = 86_400
"""Seconds of a time limit."""

RATE = re.compile(r"\d{1,9}(\.\d{1,9})?(/[smh])?")

logger = logging.getLogger(__name__)


class Refused(ValueError):
    """A control command that is none, or asks for what nobody needs."""


class BoundedClock(LamportClock):
    """Celery's logical clock, which believes no time that cannot be one."""

    def adjust(self, other: Any) -> int:
        """Go on after `other`, if it is a time; else after the last one."""
        if type(other) is not int or not 0 <= other < LATEST:
            return self.forward()
        return super().adjust(other)


class GuardedNode(pidbox.Node):
    """
    What takes control commands; one that is none is left out.

    Celery opens its channel anew after an error, which ends a worker on Redis while it reads from the old one.
    """

    mailbox: Any
    state: Any

    def handle_message(self, body: Any, message: Any = None) -> Any:
        try:
            check(body, replies=self.mailbox.reply_exchange.name, queues=self.state.app.amqp.queues)
            return super().handle_message(body, message)
        except Refused as refused:
            logger.warning("Left out a control command: %s", refused)
        except Exception as unreadable:
            logger.warning("Left out a control command that cannot be read: %s", type(unreadable).__name__)
        return None


class Mailbox(pidbox.Mailbox):
    """Where control commands and their answers are sent from, and taken."""

    node_cls = GuardedNode

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "clock": BoundedClock()})  # type: ignore[misc]


class Control(control.Control):
    """Celery's remote control, by such a mailbox."""

    Mailbox = Mailbox


def check(body: Any, *, replies: str, queues: Mapping[str, Any]) -> None:
    """
    Check that a command can be carried out, and that the worker works as before afterwards.

    `replies` is the exchange of answers, `queues` those that there are. The error quotes nothing of it.

    Raises:
        Refused: if not.
    """
    if not isinstance(body, dict) or not _is_name(body.get("method")):
        raise Refused("it names none")
    if len(json.dumps(body, default=str)) > LONGEST_COMMAND:
        raise Refused("it is too long")
    arguments, destination = body.get("arguments"), body.get("destination")
    if not isinstance(arguments, dict | None):
        raise Refused("its arguments are no mapping")
    if not isinstance(destination, list | tuple | None) or not all(map(_is_name, destination or ())):
        raise Refused("its destination is no list of names")
    if not _is_pattern(body.get("pattern"), body.get("matcher")):
        raise Refused("its pattern is none; a glob is one, and a regular expression may take for ever")
    if not _is_reply(body.get("reply_to"), body.get("ticket"), replies):
        raise Refused("its answer would go where nobody waits for it")
    _check_arguments(body["method"], arguments or {}, queues)


def _check_arguments(method: str, arguments: Mapping[str, Any], queues: Mapping[str, Any]) -> None:
    kinds = ARGUMENTS.get(method, {})
    for name, is_valid in kinds.items():
        if arguments.get(name) is not None and not is_valid(arguments[name]):
            raise Refused(f"{method} with a {name} that is none")
    if method in OF_QUEUES:
        queue = arguments.get("queue")
        others = {name for name, value in arguments.items() if value is not None} - {"queue"}
        # Celery's own commands always name the type of an exchange, and the worker reads it of new queues only.
        if arguments.get("exchange_type") == "direct":
            others.discard("exchange_type")
        if not _is_name(queue) or queue not in queues or others:
            raise Refused(f"{method} with a queue that is none of ours, or is to be set up otherwise")


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
    """A worker would start as many processes as it is told."""
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
"""Of the commands that leave something behind: their arguments, and what each may be."""
