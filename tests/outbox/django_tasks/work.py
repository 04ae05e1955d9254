"""Tasks as anybody writes them: nothing here knows the outbox."""

from __future__ import annotations

import asyncio

try:
    from django.tasks import task
except ImportError:
    from django_tasks import task

LOGGER = task.__module__.removesuffix(".base")
"""The logger of the tasks framework."""

CALLS: list[object] = []
"""What was called, in this process."""

TROUBLES: list[BaseException] = []
"""What the next calls of `fragile` raise, first come, first raised."""


@task()
def add(first, second=0):
    CALLS.append((first, second))
    return first + second


@task
def bare(*args, **kwargs):
    CALLS.append((args, kwargs))


@task()
async def eventually_add(first, second=0):
    await asyncio.sleep(0)
    return first + second


@task(takes_context=True)
def whoami(context, more=None):
    CALLS.append(context)
    return {"id": context.task_result.id, "attempt": context.attempt, "more": more}


@task(takes_context=True)
def fragile(context):
    CALLS.append(context.attempt)
    if TROUBLES:
        raise TROUBLES.pop(0)
    return context.attempt


@task()
def give(what):
    """Return something that is no JSON, by the name of what it is."""
    CALLS.append(what)
    return {"object": object(), "nan": float("nan"), "set": {1}, "tuple": (1, 2)}[what]


@task()
def enqueue_another(first):
    return add.enqueue(first).id


def plain(first):
    return first
