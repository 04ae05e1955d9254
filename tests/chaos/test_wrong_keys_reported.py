"""Redis keys of a wrong type, as publishers, operators and a single channel encounter them."""

from __future__ import annotations

import json
import uuid

import pytest
from django.core.management import CommandError, call_command

from orderflow import health
from outbox.broker import dispatch, redis_kinds
from tests.chaos.conftest import TASKS

pytestmark = pytest.mark.django_db(transaction=True)

FINISH = f"{TASKS}.finish"


def test_a_message_taken_just_before_its_key_was_lost_is_returned(redis_broker, redis_client):
    """The worker has the message, and checks for wrong keys only every few seconds."""
    with redis_broker.link.clone() as link:
        channel = link.default_channel
        channel.unacked_key = channel.qos.unacked_key = f"tests-{uuid.uuid4()}"
        redis_broker.send_task(FINISH, queue="sms")
        [item] = redis_client.lrange("sms", 0, 0)
        redis_client.delete("sms")
        redis_client.set(channel.unacked_key, "x")
        channel.exchange_declare("sms", "direct")
        channel.queue_bind("sms", "sms", "sms")
        raw = json.loads(item)
        with pytest.raises(Exception, match="WRONGTYPE"):
            channel.qos.append(channel.Message(raw, channel=channel), raw["properties"]["delivery_tag"])
        redis_client.delete(channel.unacked_key)

    [back] = redis_client.lrange("sms", 0, -1)
    assert json.loads(back)["body"] == raw["body"]


def test_status_and_health_name_the_key_and_what_to_do(spoil, capsys):
    assert health._broker().state == health.OK
    spoil("email\x06\x166")
    spoil("_kombu.binding.sms")

    shown = health._broker()
    assert shown.state == health.DEGRADED
    assert sorted(shown.facts["wrong_keys"]) == ["_kombu.binding.sms", "email\x06\x166"]
    with pytest.raises(CommandError, match=r"redis-cli DEL \"email\\x06\\x166\""):
        call_command("outbox_status")
    assert "Redis holds a string under" in capsys.readouterr().out


def test_messages_to_other_queues_are_sent_once(redis_broker, redis_client, spoil):
    """
    The relay sends a batch again that the broker did not accept: then no queue may have received its part.
    """
    from celery import current_app

    def sending(queue):
        step = current_app.signature(
            FINISH, kwargs={"message_id": str(uuid.uuid4())}, immutable=True, queue=queue
        )
        return dispatch.Sending(step, {"message_id": queue, "workflow": "tests"})

    spoil("sms")
    for _ in ("the shapes are new", "the shapes are known"):
        with pytest.raises(dispatch.NotDelivered) as missed:
            dispatch.send_all([sending("push"), sending("sms"), sending("push")], app=current_app)
        assert [headers["message_id"] for headers in missed.value.missed] == ["sms"]
    assert redis_broker.waiting("push") == 4
    redis_client.delete("push")
    with pytest.raises(dispatch.NotDelivered):
        dispatch.send_all([sending("sms")], app=current_app)


def test_the_remedy_names_the_key_as_redis_cli_reads_it():
    assert 'DEL "orders\\x06\\x163"' in redis_kinds.remedy("orders\x06\x163")
    assert 'DEL "a\\"b\\\\"' in redis_kinds.remedy('a"b\\')
