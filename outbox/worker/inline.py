"""
Going on with a chain in the process that has finished a link, instead of by way of the broker.

A link that belongs to the same pool would be published, taken off the queue and acknowledged by the very
workers that publish it, which costs more than most steps do. So the process runs it at once, as if the
broker had just delivered it: through Celery's tracer, with the request that a worker makes of a message,
so that retries, hooks and limits are the same. The delivery is acknowledged when the last such link is
done. A process that dies before gives all of it back to the broker, and the steps that are done skip.

Only a message's first, undisturbed delivery goes this way. What was delivered before, waits, is late or
belongs to another pool goes by way of the broker, where its failures are counted.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Mapping
from typing import Any

from celery import Celery, Task, states
from celery.app.trace import trace_task
from celery.exceptions import Reject

from outbox.conf import settings

MOST_LINKS = 10
"""Links that follow one delivery; more could not be told in its result (see `Followed`)."""

LONGEST_TEXT = 500
"""Characters that are told of a link's arguments and of its result."""

OPTIONS = {"task_id", "headers", "reply_to"}
"""What the links of a plain chain carry. One with another option, a queue or a countdown, is not for here."""

FAILED = {states.RETRY: "task-retried", states.FAILURE: "task-failed"}
"""Celery's events for tasks that did not succeed; it has none for those that ended as ignored."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ended:
    """A link that has run here, for those who watch tasks; times in seconds, `began` since the epoch."""

    task: str
    id: str
    parent_id: str
    kwargs: str
    began: float
    seconds: float
    state: str
    says: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Followed:
    """
    What a task returns whose chain went on here: its own result, and what followed it.

    The worker's main process gets no more of a result than its representation, so that is where it
    reads what to tell Flower.
    """

    result: Any
    seconds: float
    links: tuple[Ended, ...]

    def __repr__(self) -> str:
        links = [dataclasses.asdict(link) for link in self.links]
        return PREFIX + json.dumps({"result": repr(self.result), "seconds": self.seconds, "links": links})


PREFIX = "followed "


def read(text: str) -> tuple[str, float | None, list[Ended]]:
    """The result, its own seconds and the links in the representation of a task's result."""
    if not text.startswith(PREFIX):
        return text, None, []
    told = json.loads(text.removeprefix(PREFIX))
    return told["result"], told["seconds"], [Ended(**link) for link in told["links"]]


def tell(dispatcher: Any, link: Ended, *, root_id: str | None) -> None:
    """Send Celery's events of a link that has run here."""
    if not dispatcher or not dispatcher.enabled:
        return
    dispatcher.send(
        "task-received",
        uuid=link.id,
        name=link.task,
        args="()",
        kwargs=link.kwargs,
        root_id=root_id,
        parent_id=link.parent_id,
        retries=0,
        eta=None,
        expires=None,
        timestamp=link.began,
    )
    dispatcher.send("task-started", uuid=link.id, timestamp=link.began)
    ended: dict[str, Any] = {"uuid": link.id, "timestamp": link.began + link.seconds}
    if link.state == states.SUCCESS:
        dispatcher.send("task-succeeded", result=link.says, runtime=link.seconds, **ended)
    elif link.state in FAILED:
        dispatcher.send(FAILED[link.state], exception=link.says, **ended)


def is_inline(task: Task) -> bool:
    """Whether the task at hand was not delivered by the broker, but follows another one in its process."""
    return task.request.get("inline_since") is not None


def follow(task: Task, result: Any, *, began: float) -> Any:
    """
    Run the next link of the chain, if it may run here, and after it those that follow.

    `task` has just succeeded with `result`; `began` says when, on the monotonic clock. Returns `result`, or
    that together with what followed.

    Raises:
        Reject: if a link could be tried again neither here nor, its broker being down, later.
    """
    request: Any = task.request
    since = request.inline_since if is_inline(task) else began
    if not _may_follow(task, since):
        return result
    seconds, link = time.monotonic() - began, request.chain[-1]
    following, started_at, started = task.app.tasks[link["task"]], time.time(), time.monotonic()
    returned, info, _, text = trace_task(
        following,
        link["options"]["task_id"],
        [],  # type: ignore[arg-type]  # as JSON has it
        link["kwargs"],
        _request_of(link, request, since),
        app=task.app,
        loader=task.app.loader,
        hostname=request.hostname,
    )
    request.chain = None  # or Celery would publish what has just run
    state = info.state if info else states.SUCCESS
    if state == states.REJECTED:
        raise _rejection(returned)
    later = returned.links if isinstance(returned, Followed) else ()
    ended = Ended(
        task=link["task"],
        id=link["options"]["task_id"],
        parent_id=request.id,
        kwargs=repr(link["kwargs"])[:LONGEST_TEXT],
        began=started_at,
        seconds=returned.seconds if isinstance(returned, Followed) else time.monotonic() - started,
        state=state,
        says=_outcome(info, returned, text)[:LONGEST_TEXT],
    )
    return Followed(result=result, seconds=seconds, links=(ended, *later))


def _may_follow(task: Task, since: float) -> bool:
    request: Any = task.request
    if not request.chain or request.callbacks or not request.ignore_result:
        return False
    if not is_undisturbed(vars(request)) or len(request.chain) > MOST_LINKS:
        return False
    if time.monotonic() - since >= settings.CHAIN_INLINE_SECONDS:
        return False
    link = request.chain[-1]
    return (
        bool(link.get("immutable"))
        and not link.get("subtask_type")
        and not link.get("args")
        and {"task_id"} <= link["options"].keys() <= OPTIONS
        and _queue_of(task.app, link["task"]) == _queue_of(task.app, task.name) is not None
    )


def is_undisturbed(request: Mapping[str, Any]) -> bool:
    """Whether this is the first delivery of its message, as far as its headers and the broker say."""
    if request.get("generation") or request.get("redeliveries"):  # the latter in messages of older code
        return False
    return not ((request.get("delivery_info") or {}).get("redelivered") or request.get("came_back"))


@functools.cache
def _queue_of(app: Celery, name: str) -> str | None:
    """The queue that a task's messages go to; None if the task may not run here."""
    if not getattr(app.tasks.get(name), "runs_inline", False):
        return None
    return str(app.amqp.router.route({}, name)["queue"].name)


def _request_of(link: Mapping[str, Any], before: Any, since: float) -> dict[str, Any]:
    """The request that a worker makes of the link's message; `test_inline` compares the two."""
    headers = link["options"].get("headers") or {}
    return {
        **vars(before),
        **headers,
        "headers": headers,
        "task": link["task"],
        "id": link["options"]["task_id"],
        "root_id": before.root_id or before.id,
        "parent_id": before.id,
        "args": [],
        "kwargs": link["kwargs"],
        "argsrepr": "()",
        "kwargsrepr": repr(link["kwargs"]),
        "correlation_id": link["options"]["task_id"],
        "reply_to": link["options"].get("reply_to"),
        "retries": 0,
        "eta": None,
        "expires": None,
        "shadow": None,
        "chain": before.chain[:-1],
        "errbacks": None,
        "inline_since": since,
    }


def _outcome(info: Any, returned: Any, text: str | None) -> str:
    if info:
        return repr(getattr(info.retval, "exc", info.retval))
    return repr(returned.result) if isinstance(returned, Followed) else str(text)


def _rejection(returned: Any) -> Reject:
    error = getattr(returned.exception, "exc", returned.exception)
    return error if isinstance(error, Reject) else Reject(error, requeue=True)
