"""
Runs the next task of a chain in the same process, instead of sending it through the broker.

A task of the same pool would be published, taken off the queue and acknowledged by the very workers that
publish it, which costs more than most steps. So the process runs it at once, as if the broker had just
delivered it: through Celery's tracer and with the request that a worker makes of a message, so retries, hooks
and limits are the same. The delivery is acknowledged when the last such task is done. If the process dies
before that, the broker redelivers the whole chain, and the finished steps skip.

This applies only to the first delivery of a message. A task goes through the broker, which counts its failures,
if its message was delivered before, waits or is late, or if the task belongs to another pool.
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

from outbox.broker import inspection
from outbox.conf import settings

MOST_LINKS = 10
"""Maximum number of links that follow one delivery; its result has no room for more (see `Followed`)."""

LONGEST_TEXT = 500
"""Maximum length of the texts that describe a link's arguments and its result, in characters."""

OPTIONS = {"task_id", "headers", "reply_to"}
"""The options of links that may run inline. A link with others, such as a queue or a countdown, may not."""

FAILED = {states.RETRY: "task-retried", states.FAILURE: "task-failed"}
"""Celery's events for tasks that did not succeed; there is none for ignored tasks."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ended:
    """A link that has run inline, for monitoring. Times are in seconds; `began` counts from the epoch."""

    task: str
    id: str
    parent_id: str
    kwargs: str
    began: float
    seconds: float
    state: str
    outcome: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Followed:
    """
    The return value of a task whose chain continued inline: its own result and the links that followed.

    The worker's main process only gets the representation of a result, so it reads the links from there and
    reports them to Flower.
    """

    result: Any
    seconds: float
    links: tuple[Ended, ...]

    def __repr__(self) -> str:
        links = [vars(link) for link in self.links]
        return PREFIX + json.dumps({"result": repr(self.result), "seconds": self.seconds, "links": links})


PREFIX = "followed "


def read(text: str) -> tuple[str, float | None, list[Ended]]:
    """Return the result, its own seconds and the links in the representation of a task's result."""
    if not text.startswith(PREFIX):
        return text, None, []
    followed = json.loads(text.removeprefix(PREFIX))
    return followed["result"], followed["seconds"], [Ended(**link) for link in followed["links"]]


def send_events(dispatcher: Any, link: Ended, *, root_id: str | None) -> None:
    """Send Celery's events for a link that has run inline."""
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
        dispatcher.send("task-succeeded", result=link.outcome, runtime=link.seconds, **ended)
    elif link.state in FAILED:
        dispatcher.send(FAILED[link.state], exception=link.outcome, **ended)


def is_inline(task: Task) -> bool:
    """Return whether the current task was not delivered by the broker, but runs inline after another one."""
    return task.request.get("inline_since") is not None


def follow(task: Task, result: Any, *, began: float) -> Any:
    """
    Run the next link of the chain, if it may run inline, and the links after it.

    `task` has just succeeded with `result`; `began` is its start on the monotonic clock. Returns `result`, or a
    `Followed` if links have run.

    Raises:
        Reject: if a link must be retried and the retry could not be published, because the broker is down.
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
    request.chain = None  # otherwise Celery would publish the links that have just run
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
        outcome=_outcome(info, returned, text)[:LONGEST_TEXT],
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
    """Return whether this is the first delivery of its message, according to its headers and the broker."""
    if request.get("generation") or request.get("redeliveries"):  # the latter in messages of older code
        return False
    return not ((request.get("delivery_info") or {}).get("redelivered") or request.get("came_back"))


@functools.cache
def _queue_of(app: Celery, name: str) -> str | None:
    """The queue of a task's messages; None if the task may not run inline."""
    if not getattr(app.tasks.get(name), "runs_inline", False):
        return None
    return inspection.queue_of_task(app, name)


def _request_of(link: Mapping[str, Any], before: Any, since: float) -> dict[str, Any]:
    """The same request that a worker makes of the link's message; `test_inline` compares the two."""
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
