"""Control commands that are not used, or that would prevent a worker from working."""

from __future__ import annotations

import uuid
from typing import Any

from tests.hostile import items

NOBODY = str(uuid.uuid4())
TASK = items.TASK


def command(method: Any, arguments: Any = None, **more: Any) -> dict[str, Any]:
    return {"method": method, "arguments": arguments or {}, "destination": None, **more}


def asking(reply_to: Any, ticket: Any = NOBODY) -> dict[str, Any]:
    return command("ping", reply_to=reply_to, ticket=ticket)


COMMANDS: dict[str, Any] = {
    "a list": [1],
    "a number as its name": command(5),
    "a name that nobody knows": command("teleport"),
    "a list as its arguments": command("ping", [5]),
    "arguments that it does not have": command("ping", {"a\x00": {"b": []}}),
    "a number as its destination": command("ping", destination=5),
    "objects as its destination": command("ping", destination=[{}]),
    "a pattern that takes for ever": command("ping", pattern="(.+)+(.+)+(.+)+@$", matcher="pcre"),
    "a number as its pattern": command("ping", pattern=5, matcher="glob"),
    "a matcher that nobody knows": command("ping", pattern="*", matcher="soundex"),
    "an answer to where work waits": asking({"exchange": "orders", "routing_key": "orders"}),
    "an answer to the default exchange": asking({"exchange": "", "routing_key": "orders"}),
    "an answer to a list": asking([1]),
    "an answer to nowhere": asking({"exchange": "reply.celery.pidbox"}),
    "an object as its ticket": asking({"exchange": "reply.celery.pidbox", "routing_key": NOBODY}, {"a": 1}),
    "time limits that are none": command("time_limit", {"task_name": TASK, "hard": "x", "soft": "y"}),
    "endless time limits": command("time_limit", {"task_name": TASK, "hard": 1e308, "soft": float("inf")}),
    "negative time limits": command("time_limit", {"task_name": TASK, "hard": -1, "soft": -1}),
    "a rate that is none": command("rate_limit", {"task_name": TASK, "rate_limit": {"a": 1}}),
    "NaN as a rate": command("rate_limit", {"task_name": TASK, "rate_limit": float("nan")}),
    "a negative rate": command("rate_limit", {"task_name": TASK, "rate_limit": "-5/s"}),
    "a billion processes": command("pool_grow", {"n": 10**9}),
    "a text as the number of processes": command("pool_grow", {"n": "many"}),
    "fewer than no processes": command("pool_shrink", {"n": -(10**9)}),
    "an object as a queue": command("add_consumer", {"queue": {"a": 1}}),
    "a queue of an unknown kind": command("add_consumer", {"queue": "x", "exchange_type": "klingon"}),
    "a queue of ours, set up otherwise": command(
        "add_consumer", {"queue": "orders", "exchange_type": "fanout"}
    ),
    "NUL in a queue": command("add_consumer", {"queue": "a\x00"}),
    "no queue": command("cancel_consumer", {"queue": None}),
    "a queue that is none": command("cancel_consumer", {"queue": ["orders"]}),
    "objects to revoke": command("revoke", {"task_id": [{}, [], 5, None]}),
    "megabytes to revoke": command("revoke", {"task_id": ["x" * 1_000_000]}),
    "stamps that are none": command("revoke_by_stamped_headers", {"headers": {"a": [{}]}}),
    "stamps that are texts": command("revoke_by_stamped_headers", {"headers": ["a", "b=c=d"]}),
    "a signal that is none": command("terminate", {"task_id": NOBODY, "signal": "SIGHUGE"}),
    "revoked tasks of nobody": command("hello", {"from_node": "x", "revoked": {"a": "b", "c": [1e308]}}),
    "an election": command("election", {"id": 5, "topic": [], "action": {"task": TASK}}),
    "a pool to start anew": command("pool_restart", {"modules": ["os"], "reload": True}),
}

CLOCKS: tuple[Any, ...] = (2**53, 2**62, 2**63 - 1, -(2**62), 1e308, "9" * 30, [5], {"a": 1}, True)
"""Times that a command may contain. RabbitMQ supports integers up to 2**63 - 1."""
