"""Which links of a chain run in the same process, and that they run as if the broker had delivered them."""

from __future__ import annotations

import datetime as dt
import types
from collections.abc import Callable

import pytest
from celery import chain, current_app, shared_task, signature
from celery.app.trace import build_tracer
from celery.exceptions import Reject
from django.db import OperationalError, transaction
from kombu.exceptions import OperationalError as BrokerError

from outbox import consumer, publisher, redelivery, registry, testing
from outbox.broker import dispatch
from outbox.consumer import ConsumerTask
from outbox.models import Attempt, DeadLetter, OutboxMessage
from outbox.relay import relay
from outbox.resilience import NotNow, Permanent, RetryPolicy, Transient
from outbox.worker import inline
from outbox.worker.request import GuardedRequest
from tests.outbox.events import Happened

PATIENT = RetryPolicy(attempts=3, first_wait=dt.timedelta(seconds=1))
calls: list[str] = []
fails: dict[str, list[Exception]] = {}
takes: dict[str, Callable[[], None]] = {}
requests: dict[str, types.SimpleNamespace] = {}


def take(task):
    requests[task.name] = types.SimpleNamespace(**vars(task.request))
    calls.append(task.name.rpartition(".")[2])
    takes.get(calls[-1], lambda: None)()
    if fails.get(calls[-1]):
        raise fails[calls[-1]].pop(0)


@shared_task(base=ConsumerTask, bind=True, **PATIENT.task_options())
def first(self, *, message_id, **_):
    take(self)


@shared_task(base=ConsumerTask, bind=True, **PATIENT.task_options())
def second(self, *args, message_id, **_):
    take(self)


@shared_task(base=ConsumerTask, bind=True, **PATIENT.task_options())
def third(self, *, message_id, **_):
    take(self)


@shared_task(base=ConsumerTask, bind=True)
def never_inline(self, *, message_id, **_):
    take(self)


never_inline.runs_inline = False


@shared_task
def foreign(*, message_id, **_):
    calls.append("foreign")


def in_a_row(message):
    return chain(*(task.si(message_id=str(message.id)) for task in (first, second, third)))


@pytest.fixture(autouse=True)
def begin_anew(drain, settings):
    settings.OUTBOX_CHAIN_INLINE_SECONDS = 60
    calls.clear()
    fails.clear()
    takes.clear()
    requests.clear()


@pytest.fixture
def sent(subscribed):  # which also restores the registry
    """Publish a message for a workflow and relay it to the broker."""

    def sent(workflow=in_a_row):
        registry._workflows.pop(Happened.name, None)
        subscribed(workflow)
        with transaction.atomic():
            publisher.publish(Happened())
        relay.drain()

    return sent


def waiting(queue="jobs"):
    """The messages that the broker holds."""
    with current_app.connection_for_read() as broker:
        return current_app.amqp.queues[queue](broker.default_channel).queue_declare().message_count


def deliver(*, redelivered=False):
    """Run one message from the broker."""
    with current_app.connection_for_read() as broker:
        message = current_app.amqp.queues["jobs"](broker.default_channel).get()
        testing.run(message, redelivered=redelivered)


def test_a_chain_continues_in_the_process_that_began_it(sent):
    sent()
    deliver()

    assert (calls, waiting()) == (["first", "second", "third"], 0)


@pytest.mark.parametrize("seconds", [0, 1e-9])
def test_a_chain_that_is_late_or_may_not_run_inline_goes_through_the_broker(sent, settings, seconds):
    settings.OUTBOX_CHAIN_INLINE_SECONDS = seconds
    sent()
    deliver()
    assert (calls, waiting()) == (["first"], 1)

    deliver()
    assert (calls, waiting()) == (["first", "second"], 1)


def test_the_time_counts_from_the_delivery(sent, monkeypatch):
    now = [0.0]
    clock = types.SimpleNamespace(monotonic=lambda: now[0], perf_counter=lambda: now[0], time=lambda: now[0])
    for module in (inline, consumer):
        monkeypatch.setattr(module, "time", clock)
    sent()
    takes["first"], takes["second"] = lambda: advance(now, 31), lambda: advance(now, 31)
    deliver()

    assert (calls, waiting()) == (["first", "second"], 1)


def test_a_chain_redelivered_by_the_broker_goes_through_the_broker(sent):
    sent()
    deliver(redelivered=True)

    assert (calls, waiting()) == (["first"], 1)


def test_a_chain_redelivered_by_the_outbox_goes_through_the_broker(sent):
    sent()
    testing.purge()
    redelivery.redeliver([OutboxMessage.objects.get().pk])
    relay.drain()
    deliver()

    assert (calls, waiting()) == (["first"], 1)


def advance(now, seconds):
    now[0] += seconds


def with_(link):
    def workflow(message):
        return chain(first.si(message_id=str(message.id)), link(message))

    return workflow


@pytest.mark.parametrize(
    "link",
    [
        lambda message: never_inline.si(message_id=str(message.id)),
        lambda message: foreign.si(message_id=str(message.id)),
        lambda message: second.si(message_id=str(message.id)).set(countdown=60),
        lambda message: second.si(message_id=str(message.id)).set(queue="jobs"),
        lambda message: second.si("an argument", message_id=str(message.id)),
        lambda message: second.si(message_id=str(message.id)).on_error(foreign.si(message_id="")),
    ],
    ids=[
        "that says so",
        "of no consumer",
        "with a countdown",
        "with a queue",
        "with arguments",
        "with a callback",
    ],
)
def test_a_link_with_special_options_goes_through_the_broker(sent, link):
    sent(with_(link))
    deliver()

    assert (calls, waiting()) == (["first"], 1)


NOBODY = {"message_id": "m", "order_id": "o", "channel": "email"}


def test_a_link_of_another_pool_is_sent_to_that_pool(sent):
    sent(with_(lambda message: signature("notifications.tasks.send_email", kwargs=NOBODY, immutable=True)))
    deliver()

    assert (calls, waiting("jobs"), waiting("email")) == (["first"], 0, 1)


def test_a_task_has_the_same_request_inline_and_through_the_broker(sent, settings):
    seen = []
    for settings.OUTBOX_CHAIN_INLINE_SECONDS in (60, 0):
        sent()
        testing.drain()
        seen.append({name: comparable(request) for name, request in requests.items()})

    inline_way, broker_way = seen
    assert set(inline_way) == {first.name, second.name, third.name}
    assert inline_way == broker_way


NEW_EACH_TIME = {
    "id", "root_id", "parent_id", "message_id", "kwargs", "kwargsrepr", "headers", "reply_to", "correlation_id",
    "delivery_tag", "properties", "x_correlation_id", "inline_since", "time_limit", "soft_time_limit",
}  # fmt: skip


def comparable(request):
    """The request that a task sees. Ids are replaced by whether they equal that of the request."""
    plain = {name: value for name, value in vars(request).items() if name not in NEW_EACH_TIME}
    chained = [
        (link["task"], set(link["kwargs"]), set(link["options"])) for link in plain.pop("chain", None) or []
    ]
    return plain | {
        "chain": chained,
        "is_correlated": request.correlation_id == request.id,
        "has_parent": bool(request.parent_id) and request.parent_id != request.id,
        "is_root": request.root_id == request.id,
        "of": request.kwargs["message_id"] == request.headers["message_id"] == request.message_id,
        "headers": {name for name in request.headers if name in ("workflow", "message_id", "x_correlation_id")},
    }


@pytest.mark.parametrize("seconds", [60, 0])
def test_a_failed_link_is_retried_with_the_rest_of_the_chain(sent, settings, seconds):
    settings.OUTBOX_CHAIN_INLINE_SECONDS = seconds
    fails["second"] = [Transient("later"), Transient("later")]
    sent()
    testing.drain()

    assert calls == ["first", "second", "second", "second", "third"]
    assert list(Attempt.objects.values_list("consumer", "outcome")) == [(second.name, "retried")] * 2


@pytest.mark.parametrize("seconds", [60, 0])
def test_a_link_that_finds_the_database_down_waits_and_continues_with_the_rest(sent, settings, seconds):
    settings.OUTBOX_CHAIN_INLINE_SECONDS = seconds
    fails["second"] = [OperationalError("server closed the connection unexpectedly") for _ in range(5)]
    sent()
    testing.drain()

    assert calls == ["first", *["second"] * 6, "third"]
    assert not Attempt.objects.exists()
    assert not hasattr(second, "override_max_retries")


@pytest.mark.parametrize("seconds", [60, 0])
def test_a_link_that_fails_for_good_ends_the_chain_with_its_own_dead_letter(sent, settings, seconds):
    settings.OUTBOX_CHAIN_INLINE_SECONDS = seconds
    fails["second"] = [Permanent("never")]
    sent()
    testing.drain()

    dead_letter = DeadLetter.objects.get()
    assert (calls, dead_letter.consumer, dead_letter.workflow) == (
        ["first", "second"],
        second.name,
        f"{__name__}.in_a_row",
    )
    assert dead_letter.task_id == requests[second.name].id


@pytest.mark.parametrize("seconds", [60, 0])
def test_the_message_of_a_link_that_has_to_wait_is_redelivered(sent, settings, seconds):
    settings.OUTBOX_CHAIN_INLINE_SECONDS = seconds
    fails["second"] = [NotNow("not now", retry_after=dt.timedelta(seconds=7))]
    sent()
    testing.drain()
    assert calls == ["first", "second"]

    testing.drain(redeliveries=True)
    assert calls == ["first", "second", "first", "second", "third"]


def test_a_link_whose_retry_finds_no_broker_rejects_the_delivery(sent, monkeypatch):
    fails["second"] = [Transient("later")]
    sent()

    def refuse(*_, **__):
        raise BrokerError("no broker")

    with current_app.connection_for_read() as broker:
        message = current_app.amqp.queues["jobs"](broker.default_channel).get()
        monkeypatch.setattr(ConsumerTask, "apply_async", refuse)
        monkeypatch.setattr("celery.canvas.Signature.apply_async", refuse)
        outcome = result_of(message)
        message.ack()

    error = outcome.retval.exception
    assert isinstance(getattr(error, "exc", error), Reject)
    assert calls == ["first", "second"]


def result_of(message):
    """The result that a pool would pass to the worker's main process."""
    name = message.headers["task"]
    args, kwargs, embed = message.decode()
    request = {**message.headers, **embed, "delivery_info": {}, "hostname": "test@inline", "is_eager": False}
    return build_tracer(name, current_app.tasks[name], app=current_app)(
        message.headers["id"], args, kwargs, request
    )


class Dispatcher:
    """Records events."""

    enabled = True

    def __init__(self):
        self.events = []

    def send(self, event, **fields):
        self.events.append((event, fields))


def events_of(message):
    """The events that a worker's main process would send after a successful delivery."""
    task = current_app.tasks[message.headers["task"]]
    dispatcher = Dispatcher()
    outcome = result_of(message)
    request = guarded_request(message, task, dispatcher)
    request.send_event("task-succeeded", result=outcome.retstr, runtime=outcome.runtime)
    return dispatcher.events


def guarded_request(message, task, dispatcher):
    return GuardedRequest(message, app=current_app, task=task, hostname="test@inline", eventer=dispatcher)


def test_flower_gets_the_events_of_each_link_as_if_the_broker_had_delivered_it(sent):
    fails["third"] = [Transient("later")]
    sent()
    with current_app.connection_for_read() as broker:
        message = current_app.amqp.queues["jobs"](broker.default_channel).get()
        sent_events = events_of(message)
        message.ack()

    ids = [message.headers["id"], requests[second.name].id, requests[third.name].id]
    assert [(event, ids.index(fields["uuid"])) for event, fields in sent_events] == [
        ("task-succeeded", 0),
        ("task-received", 1),
        ("task-started", 1),
        ("task-succeeded", 1),
        ("task-received", 2),
        ("task-started", 2),
        ("task-retried", 2),
    ]
    assert [fields["parent_id"] for event, fields in sent_events if event == "task-received"] == ids[:2]
    assert [fields["name"] for event, fields in sent_events if event == "task-received"] == [
        second.name,
        third.name,
    ]
    assert {fields["root_id"] for event, fields in sent_events if event == "task-received"} == {ids[0]}
    assert [fields["result"] for _, fields in sent_events if "result" in fields] == ["None", "None"]
    assert sent_events[-1][1]["exception"] == "Transient('later')"


def test_a_result_without_links_is_reported_unchanged():
    assert inline.read("'followed by nothing'") == ("'followed by nothing'", None, [])


def test_the_longest_chain_fits_into_what_is_kept_of_a_result():
    link = inline.Ended(
        task="notifications.tasks.send_something_long",
        id="0" * 36,
        parent_id="0" * 36,
        kwargs="x" * inline.LONGEST_TEXT,
        began=1e10 / 3,
        seconds=1 / 3,
        state="SUCCESS",
        outcome="x" * inline.LONGEST_TEXT,
    )
    followed = inline.Followed(result=True, seconds=1 / 3, links=(link,) * inline.MOST_LINKS)

    assert len(repr(followed)) < ConsumerTask.resultrepr_maxsize
    assert inline.read(repr(followed)) == ("True", 1 / 3, [link] * inline.MOST_LINKS)


def test_one_canvas_after_the_other_goes_the_same_way(sent):
    step = {"message_id": "m"}
    canvas = chain(first.si(**step), second.si(**step))
    dispatch.send(dispatch.Sending(canvas, {"message_id": "m", "workflow": "w", "redeliveries": 0}))
    deliver()

    assert (calls, waiting()) == (["first", "second"], 0)
