"""Counters equal the rows: before, during and after roll-ups, and after the rows are deleted."""

from __future__ import annotations

import datetime as dt
import threading

import pytest
from django.db import connection, transaction

from notifications.models import Notification
from orders.models import Order
from outbox import crash_points
from outbox.database import clock
from outbox.models import Attempt, DeadLetter, OutboxMessage, StatisticsBucket, StatisticsCursor
from outbox.statistics import catalogue, counting, reading, rolling_up, totals
from tests.factories import ProductFactory, place
from tests.processes import eventually
from tests.statistics.conftest import in_buckets, stored

DAY = dt.timedelta(days=1)
MINUTE = dt.timedelta(minutes=1)


def counted(name):
    """Return the total of a series, by labels."""
    return {labels: amount.count for labels, amount in totals.read([name])[name].items()}


def bury(number, *, consumer="tests.consumer"):
    return DeadLetter.objects.create(
        source="task", consumer=consumer, error_class="Broken", error="", fingerprint="f", digest=str(number)
    )


def fail(*, consumer="tests.consumer", outcome="retried", **known):
    message = OutboxMessage.objects.create(
        event_name="tests.happened", event_version=2, key="k", payload={}, correlation_id="c"
    )
    return Attempt.objects.create(
        consumer=consumer, message_id=message.pk, outcome=outcome, error_class="Broken", error="", **known
    )


@pytest.mark.django_db(transaction=True)
def test_orders_are_counted_before_and_after_they_are_rolled_up(roll_up):
    product = ProductFactory()
    orders = [place(product) for _ in range(5)]
    assert counted("orders.placed") == {(): 5}
    assert stored("orders.placed") == {}

    roll_up()
    assert stored("orders.placed") == {(): 5}
    place(product)
    assert counted("orders.placed") == {(): 6}
    assert in_buckets("orders.placed") == 5
    assert Order.objects.count() == 6
    assert len({order.pk for order in orders}) == 5


@pytest.mark.django_db(transaction=True)
def test_a_roll_up_counts_no_row_twice(roll_up):
    for _ in range(3):
        fail()
    for _ in range(4):
        roll_up()
    assert stored("attempts.failed") == {("tests.consumer", "retried"): 3}
    assert in_buckets("attempts.failed") == 3


@pytest.mark.django_db(transaction=True)
def test_rows_that_are_deleted_stay_counted(roll_up):
    for _ in range(3):
        fail(outcome="buried")
    roll_up()
    Attempt.objects.all().delete()
    fail(outcome="buried")
    assert counted("attempts.failed") == {("tests.consumer", "buried"): 4}


@pytest.mark.django_db(transaction=True)
def test_a_row_that_is_committed_late_is_counted(roll_up):
    """Its id is lower than that of rows that were counted before its transaction ended."""
    begun, may_end = threading.Event(), threading.Event()

    def late():
        with transaction.atomic():
            fail(consumer="tests.late")
            begun.set()
            may_end.wait(30)
        connection.close()

    thread = threading.Thread(target=late)
    thread.start()
    begun.wait(30)
    try:
        fail(consumer="tests.soon")
        roll_up()
        roll_up()
        assert stored("attempts.failed") == {}
        assert counted("attempts.failed") == {("tests.soon", "retried"): 1}
    finally:
        may_end.set()
        thread.join()
    roll_up()
    assert stored("attempts.failed") == {("tests.late", "retried"): 1, ("tests.soon", "retried"): 1}


@pytest.mark.django_db(transaction=True)
def test_what_settles_later_is_counted_when_it_does(roll_up):
    first, second = bury(1), bury(2)
    roll_up()
    assert stored("dead_letters.buried") == {("tests.consumer",): 2}
    assert counted("dead_letters.resolved") == {}

    DeadLetter.objects.filter(pk=first.pk).update(resolution="discarded", resolved_at=clock.now())
    rolling_up.roll_up()
    assert counted("dead_letters.resolved") == {("discarded",): 1}
    DeadLetter.objects.filter(pk=second.pk).update(resolution="recovered", resolved_at=clock.now())
    rolling_up.roll_up()
    rolling_up.roll_up()
    assert counted("dead_letters.resolved") == {("discarded",): 1, ("recovered",): 1}


@pytest.mark.django_db(transaction=True)
def test_a_roll_up_that_is_killed_has_counted_nothing(roll_up, monkeypatch):
    class Killed(BaseException):
        pass

    def kill(point):
        if point == "statistics.folded":
            raise Killed

    for _ in range(3):
        fail()
    rolling_up.roll_up()
    rolling_up.roll_up()
    monkeypatch.setattr(crash_points, "reached", kill)
    with pytest.raises(Killed):
        rolling_up.roll_up()
    monkeypatch.undo()
    assert counted("attempts.failed") == {("tests.consumer", "retried"): 3}
    roll_up()
    assert stored("attempts.failed") == {("tests.consumer", "retried"): 3}


@pytest.mark.django_db(transaction=True)
def test_of_two_roll_ups_at_once_one_counts(roll_up):
    for _ in range(50):
        fail()
    barrier = threading.Barrier(2)

    def run():
        for _ in range(6):
            barrier.wait(30)
            rolling_up.roll_up()
        connection.close()

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    roll_up()
    assert stored("attempts.failed") == {("tests.consumer", "retried"): 50}
    assert in_buckets("attempts.failed") == 50


@pytest.mark.django_db(transaction=True)
def test_a_long_history_is_counted_in_pieces(roll_up, monkeypatch):
    monkeypatch.setattr(rolling_up, "PIECE", 7)
    for _ in range(30):
        fail()
    roll_up()
    assert stored("attempts.failed") == {("tests.consumer", "retried"): 30}

    for _ in range(20):
        fail()
    rolling_up.roll_up(within=dt.timedelta())
    totals_seen = [30]
    while totals_seen[-1] < 50:
        eventually(
            lambda: rolling_up.roll_up(within=dt.timedelta()), "a piece, once older transactions have ended"
        )
        totals_seen.append(stored("attempts.failed")["tests.consumer", "retried"])
    assert totals_seen == [30, 37, 44, 50]
    assert counted("attempts.failed") == {("tests.consumer", "retried"): 50}


@pytest.mark.django_db(transaction=True)
def test_a_series_that_is_far_behind_has_no_total(monkeypatch):
    for _ in range(5):
        fail()
    monkeypatch.setattr(totals, "MOST_IN_TAIL", 3)
    assert "attempts.failed" not in totals.read(["attempts.failed"])


def publish(*, ago=dt.timedelta()):
    return OutboxMessage.objects.create(
        event_name="tests.happened",
        event_version=2,
        key="k",
        payload={},
        correlation_id="c",
        status="published",
        published_at=clock.now() - ago,
    )


@pytest.mark.django_db(transaction=True)
def test_publications_are_counted_by_time(roll_up):
    for minutes in range(5):
        publish(ago=minutes * MINUTE)
    publish(ago=20 * DAY)
    assert counted("messages.published") == {(): 6}
    roll_up()
    assert stored("messages.published") == {(): 6}
    assert in_buckets("messages.published") == 5
    publish()
    assert counted("messages.published") == {(): 7}


@pytest.mark.django_db(transaction=True)
def test_rows_that_were_written_while_the_clock_was_behind_are_counted(roll_up):
    publish(ago=DAY / 2)
    roll_up()
    publish(ago=DAY / 4)  # the clock had been set back, and was set right again
    roll_up()
    StatisticsCursor.objects.update(recounted_at=clock.now() - DAY)
    roll_up()
    assert stored("messages.published") == {(): 2}

    cursor = StatisticsCursor.objects.get(series="messages.published")
    cursor.counted_until += 3_600_000_000  # the clock is an hour behind
    cursor.save()
    publish()
    rolling_up.roll_up()
    assert stored("messages.published") == {(): 3}
    assert counted("messages.published") == {(): 3}


@pytest.mark.django_db(transaction=True)
def test_transaction_ids_of_another_server_do_not_stop_the_roll_up(roll_up):
    """A dump is restored into a new server, whose transaction ids begin anew."""
    fail()
    rolling_up.roll_up()
    StatisticsCursor.objects.update(samples=[[10**9, 10**15]])
    roll_up()
    roll_up()
    assert stored("attempts.failed") == {("tests.consumer", "retried"): 1}


@pytest.mark.django_db(transaction=True)
def test_there_is_a_bound_on_combinations_of_labels(roll_up):
    for number in range(catalogue.MOST_COMBINATIONS + 20):
        bury(number, consumer=f"tests.consumer_{number:03}")
    before = counted("dead_letters.buried")
    roll_up()
    assert len(before) == catalogue.MOST_COMBINATIONS + 1
    assert before == stored("dead_letters.buried") == counted("dead_letters.buried")
    assert before[(catalogue.OTHER,)] == 20


@pytest.mark.django_db(transaction=True)
def test_notifications_count_once_they_are_sent(roll_up):
    order = place()
    common = {"order_id": order.pk, "order_number": order.number, "template": "placed", "channel": "email"}
    waiting = Notification.objects.create(message_id=order.message_id, recipient="a@example.com", **common)
    Notification.objects.create(
        message_id=order.message_id, recipient="b@example.com", status="suppressed", **common
    )
    roll_up()
    assert counted("notifications.ended") == {("email", "suppressed"): 1}
    Notification.objects.filter(pk=waiting.pk).update(status="sent", sent_at=clock.now())
    rolling_up.roll_up()
    assert counted("notifications.ended") == {("email", "suppressed"): 1, ("email", "sent"): 1}


def test_durations_are_counted_up_to_their_bound():
    """As Prometheus counts them: a bound belongs to its bucket."""
    amount = counting.Amount(count=3, seconds=6.0, histogram=[1, 1, 0, 1])
    assert reading.quantile(amount.histogram, [1.0, 2.0, 3.0], 0.5) == pytest.approx(1.5)
    assert reading.quantile(amount.histogram, [1.0, 2.0, 3.0], 1.0) == 3.0
    assert reading.quantile(amount.histogram, [1.0, 2.0, 3.0], 1.0, maximum=9.0) == 9.0
    assert reading.quantile([0, 0], [1.0], 0.5) is None


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_rolled_up", [False, True])
def test_plots_have_a_point_for_every_step(roll_up, is_rolled_up):
    product = ProductFactory()
    orders = [place(product) for _ in range(4)]
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO orders_ordertransition (order_id, from_status, to_status, task, actor, note, at)
            SELECT id, 'placed', 'rejected', '', '', '', placed_at + interval '1 second' FROM orders_order
            WHERE id = ANY(%s)
            """,
            [[order.pk for order in orders[:3]]],
        )
    if is_rolled_up:
        roll_up()
    now = clock.now()
    lines = reading.read(
        "orders.placed", "orders.finished", since=now - 30 * MINUTE, until=now + 2 * MINUTE, step=5 * MINUTE
    )
    [placed], [finished] = lines["orders.placed"], lines["orders.finished"]
    assert len(placed.points) == len(finished.points) == 7
    assert sum(point.count for point in placed.points) == 4
    assert finished.labels == {"outcome": "rejected"}
    point = next(point for point in finished.points if point.count)
    assert (point.count, point.mean, point.maximum) == (3, pytest.approx(1.0), pytest.approx(1.0))
    assert 0.5 < point.quantile(0.5) <= 1.0
    assert sum(point.histogram[: point.bounds.index(1.0) + 1]) == 3


@pytest.mark.django_db(transaction=True)
def test_old_minutes_are_deleted_and_their_total_stays(roll_up):
    fail(failed_at=clock.now() - rolling_up.KEPT + 5 * MINUTE)
    roll_up()
    assert in_buckets("attempts.failed") == 1
    StatisticsBucket.objects.update(minute=clock.now() - rolling_up.KEPT - MINUTE)
    rolling_up.roll_up()
    assert in_buckets("attempts.failed") == 0
    assert counted("attempts.failed") == {("tests.consumer", "retried"): 1}


@pytest.mark.django_db(transaction=True)
def test_an_order_is_late_when_its_time_is_over(roll_up):
    product = ProductFactory()
    in_time, late, early = (place(product) for _ in range(3))
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE orders_order DISABLE TRIGGER USER")
        cursor.execute(
            "UPDATE orders_order SET placed_at = placed_at - interval '3 minutes' WHERE id = ANY(%s)",
            [[in_time.pk, late.pk]],
        )
        cursor.execute(
            "UPDATE orders_order SET status = 'rejected', due_at = NULL,"
            " finished_at = placed_at + interval '60 seconds' WHERE id = %s",
            [in_time.pk],
        )
        cursor.execute("ALTER TABLE orders_order ENABLE TRIGGER USER")
    for _ in range(2):
        assert counted("orders.due") == {("yes",): 1, ("no",): 1}
        roll_up()
    assert stored("orders.due") == {("yes",): 1, ("no",): 1}
    assert Order.objects.get(pk=early.pk).finished_at is None
