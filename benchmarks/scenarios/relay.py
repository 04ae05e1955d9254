"""
Draining committed `OrderPlaced` rows into chains, compared with one naive chain per order and the raw limits.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable
from typing import Any

import amqp
import redis
from celery import chain, current_app
from django.conf import settings
from django.db import connection

from benchmarks import measure, tables
from benchmarks.harness import Contestant, Incorrect, Result, Sample, alternate
from benchmarks.naive import tasks
from benchmarks.naive.celery import app as naive
from benchmarks.scenarios import Options, Say
from outbox.models import QueueProbe
from outbox.relay import relay

NAIVE_QUEUE = "celery"
WARM = 10
"""Messages sent beforehand: connections and one-time work of a process are not compared."""


def run(options: Options, say: Say) -> Result:
    """Compare; with RabbitMQ the naive system publishes with confirms too."""
    rows = options.scaled(10_000, 500)
    on_redis = options.broker == "redis"
    if not on_redis:
        naive.conf.broker_transport_options = {"confirm_publish": True}
    raw = pipelined if on_redis else confirmed
    contestants = [
        Contestant(name="naive", run=lambda: timed(rows, naive_chains, NAIVE_QUEUE)),
        Contestant(name="orderflow", run=lambda: timed(rows, drain, "orders"), baseline="naive"),
        Contestant(name="raw broker", run=lambda: timed(rows, raw, ""), baseline="naive"),
        Contestant(name="raw claims in SQL", run=lambda: timed(rows, claims, ""), baseline="naive"),
        Contestant(name="raw commits", run=lambda: timed(rows, commits, ""), baseline="naive"),
    ]
    result = Result(scenario="relay", unit="messages/s")
    result.rows = alternate(contestants, rounds=options.rounds, say=say)
    ratio = result.row("orderflow").ratio or 0.0
    result.judge("at least 6 x naive", ratio, least=6.0)
    return result


def timed(rows: int, work: Callable[[int], float], queue: str) -> Sample:
    """Run one way on empty tables with `rows` committed messages; check what arrived in its queue."""
    _prepare(WARM)
    work(WARM)
    _prepare(rows)
    meter, before = measure.Meter(measure.servers()), time.process_time()
    took = work(rows)
    cpu = {"publisher": time.process_time() - before, **meter.read()[0]}
    if queue:
        probes = QueueProbe.objects.filter(queue=queue).count()
        arrived = tables.waiting(naive if queue == NAIVE_QUEUE else current_app, queue) - probes
        if arrived != rows:
            raise Incorrect(f"{rows} messages were published to {queue}, {arrived} arrived")
    tables.clean_queues()
    return Sample(value=rows / took, units=rows, cpu=cpu)


def _prepare(rows: int) -> None:
    tables.clean()
    tables.write_messages(rows)


def drain(rows: int) -> float:
    """The relay, until nothing is due, in a session like that of its process (see `outbox.relay.listener`)."""
    with connection.cursor() as cursor:
        cursor.execute("SET synchronous_commit TO off")
    began = time.perf_counter()
    done = relay.drain()
    took = time.perf_counter() - began
    with connection.cursor() as cursor:
        cursor.execute("RESET synchronous_commit")
    if done.published != rows or done.broker_down:
        raise Incorrect(f"{done} of {rows} messages")
    return took


def naive_chains(rows: int) -> float:
    """A chain per order, as `on_commit` sends it."""
    ids = [str(uuid.uuid4()) for _ in range(rows)]
    began = time.perf_counter()
    for order in ids:
        chain(tasks.validate.si(order), tasks.charge.si(order), tasks.fulfill.si(order)).delay()
    return time.perf_counter() - began


def pipelined(rows: int) -> float:
    """The broker alone: the same number of messages of a chain's size, 500 per pipeline."""
    chain(tasks.validate.si(""), tasks.charge.si(""), tasks.fulfill.si("")).delay()
    with contextlib.closing(redis.Redis.from_url(settings.BROKER_URL)) as link:
        message = link.lindex(NAIVE_QUEUE, 0)
        if not isinstance(message, bytes):
            raise Incorrect("the naive chain did not arrive")
        began = time.perf_counter()
        for first in range(0, rows, 500):
            with link.pipeline(transaction=False) as pipeline:
                for _ in range(first, min(rows, first + 500)):
                    pipeline.lpush("raw", message)
                pipeline.execute()
        return time.perf_counter() - began


def confirmed(rows: int) -> float:
    """The broker alone: the same number of messages of a chain's size, all sent, then all confirms awaited."""
    chain(tasks.validate.si(""), tasks.charge.si(""), tasks.fulfill.si("")).delay()
    with naive.connection_for_read() as link:
        sent: Any = naive.amqp.queues[NAIVE_QUEUE](link.default_channel).get(no_ack=True)
    message = amqp.Message(sent.body, application_headers=sent.headers, delivery_mode=2)
    with naive.connection_for_write(transport_options={"confirm_publish": False}) as link:
        channel: Any = link.default_channel
        name = channel.queue_declare(queue="", exclusive=True).queue
        channel.confirm_select()
        waiting = dict.fromkeys(range(1, rows + 1))

        def note(tag: int, multiple: bool) -> None:
            if multiple:
                while waiting and (first := next(iter(waiting))) <= tag:
                    del waiting[first]
            else:
                waiting.pop(tag, None)

        channel.events["basic_ack"].add(note)
        began = time.perf_counter()
        for _ in range(rows):
            channel.basic_publish(message, routing_key=name)
        while waiting:
            link.drain_events(timeout=10)
        return time.perf_counter() - began


def claims(rows: int) -> float:
    """The database alone: claim and settle in batches, without sending."""
    began = time.perf_counter()
    while batch := relay.claim(relay.BATCH):
        relay.settle(batch)
    return time.perf_counter() - began


def commits(rows: int) -> float:
    """The disk alone: one row per commit, one after the other."""
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS benchmark_row")
        cursor.execute("CREATE TABLE benchmark_row (at timestamptz)")
        began = time.perf_counter()
        for _ in range(rows):
            cursor.execute("INSERT INTO benchmark_row VALUES (now())")
        took = time.perf_counter() - began
        cursor.execute("DROP TABLE benchmark_row")
    return took
