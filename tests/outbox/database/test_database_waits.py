"""Messages wait while the database is down, and no message spends tries for that."""

from __future__ import annotations

import dataclasses
import datetime as dt
import uuid

import pytest
from celery import Celery
from django.db import OperationalError, connection
from hypothesis import given, settings
from hypothesis import strategies as st
from kombu import Connection, Queue

from outbox import testing
from outbox.consumer import ConsumerTask
from outbox.models import Attempt, DeadLetter, InboxEntry, OutboxMessage
from outbox.resilience import NotNow, RetryPolicy, Transient

pytestmark = pytest.mark.django_db(transaction=True)

TRIES = 3
PROCESSES = 2
ROUND = RetryPolicy(attempts=TRIES, redelivery_waits=())
TASK = "tests.outbox.database.test_database_waits.step"
QUEUE = Queue("database-waits")

FAULTS = ("outage", "outage before its end", "outage while failing", "transient", "not now in an outage")


@dataclasses.dataclass
class Weather:
    """The state of the database at the next delivery."""

    fault: str = ""
    down: bool = False

    def refuse(self, execute, sql, params, many, context):
        if self.down:
            raise OperationalError("server closed the connection unexpectedly")
        return execute(sql, params, many, context)


weather = Weather()


def step(*, message_id, **_):
    InboxEntry.objects.exists()
    if weather.fault == "outage before its end":
        weather.down = True
        InboxEntry.objects.exists()
    if weather.fault == "not now in an outage":
        weather.down = True
        raise NotNow("a breaker is open")
    weather.down = weather.fault == "outage while failing"
    if weather.fault in ("transient", "outage while failing"):
        raise Transient("this message's own")
    if weather.fault == "short outage":
        raise OperationalError("server closed the connection unexpectedly")
    if weather.fault == "asks for time":
        raise Transient("this message's own, not before", retry_after=dt.timedelta(seconds=5))


def process(number):
    """An app with a task object of its own, as every process has one."""
    app = Celery(f"process {number}", broker="memory://", set_as_current=False)
    app.conf.task_default_queue, app.conf.task_queues = QUEUE.name, [QUEUE]
    app.task(step, name=TASK, base=ConsumerTask, **ROUND.task_options())
    return app


@pytest.fixture(scope="module")
def processes():
    return [process(number) for number in range(PROCESSES)]


@pytest.fixture
def queue(processes):
    with Connection("memory://") as broker, connection.execute_wrapper(weather.refuse):
        waiting = QUEUE(broker.default_channel)
        waiting.declare()
        waiting.purge()
        yield waiting
        weather.fault, weather.down = "", False


def deliver(queue, app, fault, *, redelivered=False):
    message = queue.get()
    assert message is not None, "the message is gone"
    weather.fault, weather.down = fault, fault == "outage"
    testing.run(message, app=app, redelivered=redelivered)
    weather.down = False
    return message.headers["message_id"]


def send(app, *, retries=0):
    message_id = str(uuid.uuid4())
    OutboxMessage.objects.create(
        id=message_id, event_name="a", event_version=1, key="k", payload={}, status="published"
    )
    headers = {"message_id": message_id}
    app.tasks[TASK].apply_async(kwargs={"message_id": message_id}, headers=headers, retries=retries)
    return message_id


deliveries = st.lists(
    st.tuples(st.sampled_from(FAULTS[:-1]), st.integers(0, PROCESSES - 1), st.booleans()), max_size=20
)


@pytest.mark.slow
def test_waiting_for_the_database_spends_no_attempts(processes, queue):
    @settings(max_examples=40)
    @given(st.lists(st.just(0), min_size=1, max_size=3), deliveries)
    def any_outages_and_failures_in_any_process(messages, deliveries):
        queue.purge()
        failed = {send(processes[0]): 0 for _ in messages}
        for fault, number, redelivered in deliveries:
            if queue.queue_declare(passive=True).message_count == 0:
                break
            message_id = deliver(queue, processes[number], fault, redelivered=redelivered)
            ends_its_round = failed[message_id] == TRIES - 1
            failed[message_id] += fault == "transient" or (
                fault == "outage while failing" and not ends_its_round
            )
        buried = {str(pk) for pk in DeadLetter.objects.values_list("message_id", flat=True)}
        assert buried & failed.keys() == {pk for pk, tries in failed.items() if tries == TRIES}
        assert queue.queue_declare(passive=True).message_count == len(failed.keys() - buried)
        for _ in failed.keys() - buried:
            deliver(queue, processes[0], "")
        assert not Attempt.objects.filter(outcome=Attempt.Outcome.LOST, message_id__in=failed).exists()
        assert not any(hasattr(app.tasks[TASK], "override_max_retries") for app in processes)

    any_outages_and_failures_in_any_process()


def test_after_an_outage_other_messages_get_as_many_quick_tries_as_before(processes, queue):
    [app, _] = processes
    send(app)
    deliver(queue, app, "outage")
    queue.purge()
    message_id = send(app)
    for _ in range(TRIES):
        deliver(queue, app, "transient")

    assert DeadLetter.objects.get().message_id == uuid.UUID(message_id)
    assert queue.get() is None


def test_a_hundred_waits_and_one_failure_are_one_failure(processes, queue):
    [app, _] = processes
    send(app)
    for _ in range(100):
        deliver(queue, app, "outage")
    deliver(queue, app, "transient")

    assert Attempt.objects.get().outcome == Attempt.Outcome.RETRIED
    assert queue.get() is not None


def test_an_outage_that_is_over_when_it_is_noticed_spends_no_attempt(processes, queue):
    [app, _] = processes
    send(app)
    for _ in range(TRIES + 1):
        deliver(queue, app, "short outage")

    assert not Attempt.objects.exists()
    deliver(queue, app, "")
    assert not DeadLetter.objects.exists()


def test_a_round_that_ends_in_an_outage_ends_when_the_outage_is_over(processes, queue):
    [app, another] = processes
    message_id = send(app)
    for fault in [*["transient"] * (TRIES - 1), "outage while failing"]:
        deliver(queue, app, fault)
    assert not DeadLetter.objects.exists()
    deliver(queue, another, "transient")

    assert DeadLetter.objects.get().message_id == uuid.UUID(message_id)
    assert queue.get() is None


def test_a_message_that_claims_thousands_of_retries_fails_with_its_own_error(processes, queue):
    send(processes[0], retries=5_000)
    deliver(queue, processes[0], "transient")

    assert DeadLetter.objects.get().error_class == "Transient"


def test_an_outage_while_a_message_is_postponed_spends_no_attempt(processes, queue):
    send(processes[0])
    deliver(queue, processes[0], "not now in an outage")

    assert not Attempt.objects.exists()
    deliver(queue, processes[1], "")
    assert not DeadLetter.objects.exists()
