"""Messages made in bulk are like real ones: the relay delivers them, and retention knows their age."""

from __future__ import annotations

import datetime as dt

import pytest
from celery import current_app
from django.utils import timezone

from benchmarks import environment, tables
from outbox.models import OutboxMessage
from outbox.relay import relay


@pytest.fixture(autouse=True)
def clean(transactional_db, tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "FOLDER", tmp_path)
    tables.clean()
    yield
    tables.clean_queues()


def test_messages_in_bulk_are_delivered_once_each():
    tables.write_messages(3)
    assert relay.drain().published == 3
    assert tables.waiting(current_app, "orders") == 3
    assert relay.drain().published == 0


def test_their_ids_are_uuids_that_grow_with_time():
    tables.write_messages(3)
    first, *_, last = OutboxMessage.objects.order_by("payload__order_number").values_list("id", flat=True)
    assert (first.version, last.version) == (7, 7)
    assert first < last


def test_published_messages_have_the_requested_age():
    tables.write_messages(2, published=True, days_ago=31)
    [message, _] = OutboxMessage.objects.filter(status=OutboxMessage.Status.PUBLISHED)
    assert timezone.now() - message.published_at >= dt.timedelta(days=31)


def test_cleaning_leaves_products_and_nothing_else():
    tables.write_messages(3)
    relay.drain()
    tables.clean()
    assert tables.waiting(current_app, "orders") == 0
    assert not OutboxMessage.objects.exists()
