"""Redis keys of a wrong type: what needs them waits, everything else continues."""

from __future__ import annotations

import json

import pytest

from outbox.broker import inspection
from tests.chaos.conftest import TASKS, has_run
from tests.processes import eventually
from tests.slow import but_first

pytestmark = [
    pytest.mark.slow,
    pytest.mark.processes,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(200),
]

POOL = "orders"
FINISH = f"{TASKS}.finish"


@pytest.fixture(scope="module", params=but_first(["threads", "prefork"], others="nightly"))
def worker(request, redis_broker, stack):
    return started(stack, redis_broker, request.param)


def started(stack, redis_broker, pool):
    made = stack.worker(
        f"keys-{pool}",
        "orders",
        "email",
        pool=pool,
        include=TASKS,
        ORDERFLOW_POOL=POOL,
        BROKER_URL=redis_broker.url,
    )
    made.wait_until_ready()
    return made


def goes_on(redis_broker, queue):
    sent = redis_broker.send_task(FINISH, queue=queue)
    eventually(lambda: has_run(sent), f"{queue} goes on")


def complains(worker, key):
    """The log names the wrong key, and what to do."""
    quoted = json.dumps(repr(key))[1:-1]
    eventually(
        lambda: worker.has_logged(quoted) and worker.has_logged("redis-cli DEL"),
        lambda: worker.output()[-3000:],
    )


@pytest.mark.parametrize("key", ["orders", "orders\x06\x163", "email"])
def test_a_queue_whose_key_has_a_wrong_type_waits_and_the_others_continue(
    worker, redis_broker, redis_client, spoil, key
):
    goes_on(redis_broker, "orders")
    spoil(key)
    complains(worker, key)
    goes_on(redis_broker, "orders" if key == "email" else "email")
    if key not in ("orders", "email"):
        goes_on(redis_broker, "orders")
    assert worker.output().count("Unrecoverable") == worker.output().count("Connection to broker lost") == 0
    assert redis_client.get(key) == b"x"

    redis_client.delete(key)
    eventually(lambda: worker.has_logged("has been corrected"), "the worker notices")
    goes_on(redis_broker, "orders")
    goes_on(redis_broker, "email")


@pytest.mark.parametrize(
    ("key", "kind"),
    [("unacked-orders", "string"), ("unacked-index-orders", "list")],
    ids=["what is held", "since when it is held"],
)
def test_no_message_is_taken_that_could_not_be_tracked(worker, redis_broker, redis_client, spoil, key, kind):
    goes_on(redis_broker, "orders")
    spoil(key, kind)
    complains(worker, key)
    waiting = redis_broker.send_task(FINISH)
    with pytest.raises(AssertionError):
        eventually(lambda: has_run(waiting), "nothing", within=2)
    assert redis_broker.waiting() == 1
    assert worker.is_alive()

    redis_client.delete(key)
    eventually(lambda: has_run(waiting), "what waited is taken")


@pytest.mark.parametrize(
    "key", ["_kombu.binding.orders", "_kombu.binding_permanent.orders", "_kombu.binding.celery.pidbox"]
)
def test_bindings_of_a_wrong_type_stop_nothing(redis_broker, stack, worker, spoil, key):
    spoil(key)
    goes_on(redis_broker, "orders")
    again = started(stack, redis_broker, "solo")
    try:
        complains(again, key)
        goes_on(redis_broker, "email")
    finally:
        again.stop()
    assert key in inspection.wrong_keys()


def test_a_lock_without_expiry_is_named(worker, spoil):
    """Messages of a dead worker would not be redelivered."""
    spoil("unacked-mutex-orders")
    complains(worker, "unacked-mutex-orders")
    assert "never expires" in inspection.wrong_keys()["unacked-mutex-orders"]
