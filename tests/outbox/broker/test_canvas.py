"""`steps` returns what `celery.chain` returns, faster."""

from __future__ import annotations

import json

import pytest
from celery import chain

from orders import tasks
from outbox.broker.canvas import steps

KWARGS = {"message_id": "m", "order_id": "o"}


def plain(canvas):
    return json.loads(json.dumps(canvas))


@pytest.mark.parametrize("names", [["validate", "charge", "fulfill"], ["cancel", "refund"]])
def test_steps_equal_the_chain_of_celery(names):
    links = [getattr(tasks, name) for name in names]
    as_celery_does = chain(*(link.si(**KWARGS) for link in links))
    ours = steps(*links, **KWARGS)

    assert plain(ours) == plain(as_celery_does)
    assert type(ours) is type(as_celery_does)


def test_one_step_is_no_chain():
    assert plain(steps(tasks.refund, **KWARGS)) == plain(tasks.refund.si(**KWARGS))


def test_links_share_nothing():
    first, second = steps(tasks.cancel, tasks.refund, **KWARGS).tasks
    first.kwargs["order_id"] = "another"
    first.set(queue="elsewhere")

    assert (second.kwargs, second.options) == (KWARGS, {})


def test_a_task_keeps_its_name_whatever_was_cached_before():
    for task in (tasks.validate, tasks.charge, tasks.validate):
        assert steps(task, **KWARGS).task == task.name
