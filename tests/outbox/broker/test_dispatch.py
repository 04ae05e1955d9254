"""Messages from templates equal those that Celery sends."""

from __future__ import annotations

import itertools
import json
import re
import uuid

import kombu
import pytest
from celery import Celery, Task, chain, group

import celeryconfig
from outbox.broker import dispatch, message_templates, transports
from tests.chaos.conftest import AMQP_URL
from tests.processes import eventually
from tests.rabbitmq_hosts import answers, own_connections

HEADERS = {
    "message_id": "m-1",
    "x_correlation_id": "c-1",
    "causation_id": "",
    "workflow": "tests.workflow",
    "redeliveries": 3,
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "baggage": "sentry-environment=test,sentry-sampled=true",
}
STEP = {"message_id": "m-1", "order_id": "o-1"}


def work(*_, **__):
    """The function of the tasks; it is never called."""


@pytest.fixture(params=["redis", "rabbitmq"])
def app(request, settings):
    """A Celery app with one queue, on each broker."""
    url = {"redis": settings.BROKER_URL, "rabbitmq": AMQP_URL}[request.param]
    if not answers(url):
        pytest.skip(f"no broker answers at {url}")
    made = Celery("dispatch", broker=url, set_as_current=False)
    queue = f"dispatch-{uuid.uuid4()}"
    made.conf.update(
        task_default_queue=queue, task_ignore_result=True, broker_transport_options=own_connections(queue)
    )
    for name in ("one", "two", "three"):
        made.task(work, name=f"tests.{name}", shared=False)
    made.finalize()
    yield made
    with made.connection_for_write() as connection:
        made.amqp.queues[queue](connection.default_channel).delete()
    made.pool.force_close_all()
    made.close()


@pytest.fixture
def take(app):
    """Take messages as the broker delivers them."""

    def take(how_many):
        with app.connection_for_read() as connection:
            queue = app.amqp.queues[app.conf.task_default_queue](connection.default_channel)
            queue.declare()
            found = []
            while len(found) < how_many:
                message = eventually(lambda: queue.get(no_ack=True), "a message", within=5)
                properties = {
                    name: value for name, value in message.properties.items() if name != "delivery_tag"
                }
                found.append((message.body, message.headers, properties, message.delivery_info["routing_key"]))
            assert queue.get(no_ack=True) is None
            return found

    return take


def single(app):
    return app.tasks["tests.one"].si(**STEP)


def three(app):
    return chain(*(app.tasks[f"tests.{name}"].si(**STEP) for name in ("one", "two", "three")))


def blind(messages):
    """Messages with task ids replaced by their position, because ids are drawn in different orders."""
    text = json.dumps(messages, sort_keys=True, default=repr)
    for position, drawn in enumerate(dict.fromkeys(IDS.findall(text))):
        text = text.replace(drawn, f"id {position}")
    return text


IDS = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@pytest.mark.parametrize("canvas", [single, three])
def test_both_ways_send_the_same_bytes(app, take, canvas):
    dispatch.send(dispatch.Sending(canvas(app), HEADERS))
    slow = take(1)
    for _ in ("the shape is new", "the shape is known"):
        dispatch.send_all([dispatch.Sending(canvas(app), HEADERS)], app=app)
        assert blind(take(1)) == blind(slow)


def test_a_batch_of_known_and_new_shapes_loses_none(app, take):
    dispatch.send_all([dispatch.Sending(single(app), HEADERS)], app=app)
    take(1)
    batch = dispatch.Batch(app)
    for number in range(4):
        batch.add(dispatch.Sending(single(app), HEADERS))
        batch.add(dispatch.Sending(app.tasks["tests.two"].si(number=str(number)), HEADERS))
    batch.send()

    assert sorted(headers["task"] for _, headers, *_ in take(8)) == 4 * ["tests.one"] + 4 * ["tests.two"]


def test_a_message_larger_than_a_frame_arrives_whole(app, take):
    """RabbitMQ takes 131,072 bytes at a time."""

    def long():
        return chain(*(app.tasks["tests.one"].si(**STEP) for _ in range(500)))

    dispatch.send(dispatch.Sending(long(), HEADERS))
    dispatch.send_all([dispatch.Sending(long(), HEADERS)], app=app)
    [slow, fast] = take(2)

    assert len(fast[0]) > 200_000
    assert blind([fast]) == blind([slow])


def test_a_batch_larger_than_what_is_written_at_once_arrives_in_order(app, take):
    numbers = [str(number) for number in range(3 * transports.WRITTEN_AT_ONCE + 1)]
    dispatch.send_all(
        [dispatch.Sending(app.tasks["tests.one"].si(number=number), HEADERS) for number in numbers], app=app
    )

    assert [json.loads(body)[1]["number"] for body, *_ in take(len(numbers))] == numbers


def test_a_template_is_filled_anew_for_each_message(app, take):
    sendings = [
        dispatch.Sending(
            app.tasks["tests.one"].si(order_id=f"o-{number}"),
            {"message_id": f"m-{number}", "redeliveries": number},
        )
        for number in range(50)
    ]
    for _ in ("the shape is new", "the shape is known"):
        dispatch.send_all(sendings, app=app)

        sent = take(50)
        assert [json.loads(body)[1]["order_id"] for body, *_ in sent] == [f"o-{number}" for number in range(50)]
        assert [headers["redeliveries"] for _, headers, *_ in sent] == list(range(50))
        assert len({headers["id"] for _, headers, *_ in sent}) == 50


@pytest.mark.parametrize(
    "strange",
    [
        lambda app: app.tasks["tests.one"].si(order_id='said "so"'),
        lambda app: app.tasks["tests.one"].si(order_id="é"),
        lambda app: app.tasks["tests.one"].si(number=5),
        lambda app: app.tasks["tests.one"].si(order_id="o" * 1_000),
        lambda app: app.tasks["tests.one"].si("positional"),
        lambda app: app.tasks["tests.one"].si(**STEP).set(countdown=60),
        lambda app: group([single(app), single(app)]),
    ],
    ids=["quotes", "not ascii", "number", "long", "positional", "countdown", "group"],
)
def test_canvases_without_a_simple_shape_are_sent_by_celery(app, take, strange):
    sending = dispatch.Sending(strange(app), HEADERS)
    assert message_templates.read(sending) is None

    dispatch.send_all([dispatch.Sending(single(app), HEADERS), sending], app=app)
    take(1 + len(list(message_templates.signatures_in(sending.canvas))))


def test_headers_of_a_tracing_library_are_not_repeated(app, take, monkeypatch):
    """Like Sentry's integration: it wraps apply_async and adds headers that change."""
    moments = itertools.count()
    sends = Task.apply_async

    def traced(self, *args, headers=None, **options):
        return sends(self, *args, headers={**(headers or {}), "x-trace": f"moment {next(moments)}"}, **options)

    monkeypatch.setattr(Task, "apply_async", traced)
    dispatch.send_all([dispatch.Sending(single(app), HEADERS) for _ in range(3)], app=app)

    assert len({headers["x-trace"] for _, headers, *_ in take(3)}) == 3


@pytest.mark.parametrize("canvas", [single, three])
def test_usual_canvases_are_sent_from_templates(app, canvas):
    shape, _ = message_templates.read(dispatch.Sending(canvas(app), HEADERS))
    with app.producer_or_acquire() as producer:
        transport = transports.fast(producer.channel)
        assert transport(shape, app, producer.channel, send=dispatch.send).is_usable


def test_a_message_without_a_queue_does_not_delay_others(app, take):
    """The batch, with a known or a new shape, contains messages for a queue that does not exist."""
    if not app.conf.broker_url.startswith("amqp"):
        pytest.skip("Redis makes a list of whatever is pushed")
    nowhere = kombu.Exchange(f"nowhere-{uuid.uuid4()}", type="fanout", durable=False)
    wrong = kombu.Queue(nowhere.name, kombu.Exchange(nowhere.name, type="direct"), routing_key="nowhere")
    app.amqp.queues.add(wrong)
    app.tasks["tests.two"].queue = wrong.name
    with app.connection_for_write() as connection:
        nowhere(connection.default_channel).declare()
        for _ in ("the shape is new", "the shape is known"):
            batch = dispatch.Batch(app)
            for number in range(4):
                batch.add(dispatch.Sending(single(app), {**HEADERS, "message_id": f"m-{number}"}))
                batch.add(dispatch.Sending(app.tasks["tests.two"].si(number=str(number)), HEADERS))
            batch.add(dispatch.Sending(app.tasks["tests.two"].si(number=5), HEADERS))
            assert batch.send() == [HEADERS] * 5
            assert {headers["task"] for _, headers, *_ in take(4)} == {"tests.one"}
        nowhere(connection.default_channel).delete()


def test_names_of_slots_do_not_occur_in_what_is_configured():
    assert "--slot-" not in json.dumps(celeryconfig.task_routes)
