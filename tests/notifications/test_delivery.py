"""Notifications reach the providers once, whatever fails."""

from __future__ import annotations

import datetime as dt
import json
import socket
import threading
import uuid
from io import StringIO

import pytest
from celery import current_app
from django.core.management import CommandError, call_command
from django.utils import timezone

from notifications import channels, services
from notifications.channels import email as email_channel
from notifications.models import Notification, Preference
from outbox import redelivery, registry
from outbox.dead_letters import resolving
from outbox.models import Attempt, DeadLetter, Delivery
from outbox.relay import relay
from outbox.resilience import NotNow
from outbox.worker import losses
from tests.conftest import close_breakers
from tests.factories import place
from tests.notifications.publishing import ONLY_EMAIL, ONLY_PUSH, ONLY_SMS, publish


def test_a_customer_is_notified_through_every_channel_with_an_address(world, drain):
    publish()
    drain()

    sent = {notification.channel: notification for notification in Notification.objects.all()}
    assert {channel: row.status for channel, row in sent.items()} == dict.fromkeys(
        ["email", "sms", "push"], "sent"
    )
    assert all(row.provider_message_id and row.sent_at for row in sent.values())
    [mail], [sms], [push] = world.smtp.ledger(), world.sms.ledger(), world.push.ledger()
    assert "£1,234.50" in json.dumps(mail, ensure_ascii=False)
    assert sms["sid"] == sent["sms"].provider_message_id
    assert push["data"]["notification_id"] == str(sent["push"].pk)
    assert push["data"]["collapse_key"] == push["message"]["android"]["collapse_key"]


def test_a_customer_without_any_address_is_not_notified_and_nothing_fails(world, drain):
    publish(**ONLY_EMAIL | {"customer_email": ""})

    assert drain() == []
    assert not Notification.objects.exists()


def test_an_order_notifies_of_its_placement_and_its_shipment(world, drain):
    order = place()
    drain()

    templates = (
        Notification.objects.filter(order_id=order.pk).order_by("pk").values_list("template", "order_number")
    )
    assert list(templates) == [("placed", order.number), ("fulfilled", order.number)]


def test_a_message_delivered_ten_times_notifies_the_customer_once(world, drain):
    message_id = publish()
    for _ in range(10):
        drain()
        redelivery.redeliver([message_id])
    ran = drain()

    assert len(ran) == 3
    assert (world.smtp.count(), world.sms.count(), world.push.count()) == (1, 1, 1)


def test_a_customer_who_does_not_want_text_messages_gets_none(world, drain):
    Preference.objects.create(email="ADA@example.com", channel="sms", enabled=False)
    publish()
    drain()

    assert Notification.objects.get(channel="sms").status == "suppressed"
    assert (world.smtp.count(), world.sms.count(), world.push.count()) == (1, 0, 1)


def test_a_mail_server_that_delays_a_mail_gets_it_again(world, drain):
    with world.smtp.failing(fault="error", status=451, times=1):
        publish(**ONLY_EMAIL)
        drain()

    assert Notification.objects.get().status == "sent"
    assert world.smtp.count() == 1
    assert [attempt.outcome for attempt in Attempt.objects.all()] == ["retried"]


def test_an_address_that_bounces_ends_in_a_dead_letter_and_leaves_the_order_alone(world, drain):
    from orders.services import Contact

    order = place(contact=Contact(name="Ada", email="bounce@example.com", phone="+447700900123"))
    drain()

    order.refresh_from_db()
    assert order.status == "fulfilled"
    dead_letters = DeadLetter.objects.order_by("pk")
    assert {
        (dead_letter.consumer, dead_letter.error_class, dead_letter.attempts) for dead_letter in dead_letters
    } == {("notifications.tasks.send_email", "RecipientRefused", 1)}
    assert set(Notification.objects.filter(channel="email").values_list("status", flat=True)) == {"failed"}
    assert world.sms.count() == 2


def test_replaying_a_failed_notification_sends_it(world, drain, monkeypatch):
    with world.smtp.failing(fault="error", status=554, times=1):
        publish(**ONLY_EMAIL)
        drain()
    assert Notification.objects.get().status == "failed"

    resolving.replay(DeadLetter.objects.unresolved(), by="ada", reason="the mail server is fixed")
    drain()

    assert Notification.objects.get().status == "sent"
    assert world.smtp.count() == 1


def test_another_copy_of_a_given_up_notification_is_not_tried_again(world, drain):
    message_id = publish(**ONLY_EMAIL | {"customer_email": "bounce@example.com"})
    drain()
    redelivery.redeliver([message_id])
    drain()

    assert Notification.objects.get().attempts == 1
    resolving.discard(DeadLetter.objects.unresolved(), by="ada", reason="a mistyped address")
    redelivery.redeliver([message_id])
    drain()
    assert Notification.objects.get().attempts == 1


def test_a_channel_that_waits_starts_no_other(world, drain):
    with world.sms.failing(fault="rate_limit", retry_after=7):
        publish()
        drain()
        Delivery.objects.update(not_before=timezone.now())

        assert drain() == ["notifications.tasks.send_sms"]


def test_an_outage_of_one_channel_does_not_stop_the_others_and_costs_no_attempt(world, drain):
    with world.sms.failing(fault="rate_limit", retry_after=7):
        message_id = publish()
        drain()
        for _ in range(6):
            drain_again(drain, message_id)

        assert (world.smtp.count(), world.sms.count(), world.push.count()) == (1, 0, 1)
        assert not DeadLetter.objects.exists()
        assert set(Attempt.objects.values_list("outcome", flat=True)) == {"waited"}
        waiting = Delivery.objects.get()
        assert (waiting.status, waiting.workflow) == ("waiting", "notifications.workflows.by_sms")
        assert waiting.not_before > timezone.now() + dt.timedelta(seconds=3)

    close_breakers()
    drain_again(drain, message_id)
    assert world.sms.count() == 1


def drain_again(drain, message_id: uuid.UUID) -> None:
    Delivery.objects.filter(message_id=message_id).update(not_before=timezone.now())
    drain()


@pytest.mark.parametrize(
    ("server", "port", "only"),
    [
        ("TWILIO_API_BASE", "url", ONLY_SMS),
        ("FCM_API_BASE", "url", ONLY_PUSH),
        ("EMAIL_PORT", "port", ONLY_EMAIL),
    ],
)
def test_a_provider_that_cannot_be_reached_costs_no_attempt(world, drain, settings, server, port, only):
    setattr(settings, server, 9 if port == "port" else "http://127.0.0.1:9")
    publish(**only)
    drain()

    assert set(Attempt.objects.values_list("outcome", "error_class")) == {("waited", "Outage")}
    assert Delivery.objects.get().status == "waiting"
    assert Notification.objects.get().status == "pending"


def test_a_text_message_whose_response_was_lost_is_looked_up_and_not_sent_again(world, drain):
    with world.sms.failing(fault="drop_after", times=1):
        publish(**ONLY_SMS)
        drain()

    [sms] = world.sms.ledger()
    assert Notification.objects.get().provider_message_id == sms["sid"]
    assert [attempt.error_class for attempt in Attempt.objects.all()] == ["OutcomeUnknown"]


def test_a_text_message_that_was_lost_before_it_was_taken_is_sent_again(world, drain):
    with world.sms.failing(fault="drop_before", times=1):
        publish(**ONLY_SMS)
        drain()

    assert Notification.objects.get().status == "sent"
    assert world.sms.count() == 1


@pytest.mark.parametrize("only", [ONLY_EMAIL, ONLY_SMS, ONLY_PUSH])
def test_a_worker_that_dies_after_sending_loses_nothing(world, drain, monkeypatch, only):
    message_id = publish(**only)
    relay.drain()
    channel = {"customer_email": "email", "customer_phone": "sms", "customer_push_token": "push"}[
        ({"customer_email", "customer_phone", "customer_push_token"} - set(only)).pop()
    ]
    with monkeypatch.context() as dying:
        dying.setattr(services, "_record_sent", die)
        with pytest.raises(SystemExit):
            services.deliver(channel=channel, message_id=str(message_id))
    claimed = Notification.objects.get()
    assert (claimed.status, claimed.outcome_open) == ("sending", True)
    with pytest.raises(NotNow):
        services.deliver(channel=channel, message_id=str(message_id))

    Notification.objects.update(lease_until=timezone.now() - dt.timedelta(seconds=1))
    with losses.at_work(die), pytest.raises(SystemExit):  # before the loss of a worker is recorded
        services.deliver(channel=channel, message_id=str(message_id))
    assert Notification.objects.get().version == claimed.version
    drain()

    after = Notification.objects.get()
    assert (after.status, after.attempts) == ("sent", 2)
    if channel == "sms":
        assert [entry["sid"] for entry in world.sms.ledger()] == [after.provider_message_id]
    if channel == "push":
        keys = {entry["data"]["collapse_key"] for entry in world.push.ledger()}
        assert len(keys) == 1
    if channel == "email":
        ids = {entry["message_id"] for entry in world.smtp.ledger()}
        assert ids == {email_channel.message_id_of(after)}


def die(*_: object) -> None:
    raise SystemExit("killed")


def test_an_outdated_worker_does_not_overwrite_the_record_of_a_later_one(world, drain):
    publish(**ONLY_SMS)
    drain()
    before = Notification.objects.get()
    before.version -= 1

    assert services._record_sent(before, "SM-of-the-outdated-worker") is False
    assert Notification.objects.get().provider_message_id == before.provider_message_id


def test_a_phone_that_uninstalled_the_app_ends_in_a_dead_letter(world, drain):
    publish(customer_push_token="unregistered-1")
    drain()

    [dead_letter] = DeadLetter.objects.all()
    assert (dead_letter.consumer, dead_letter.error_class) == (
        "notifications.tasks.send_push",
        "RecipientRefused",
    )
    assert Notification.objects.get(channel="push").status == "failed"
    assert world.smtp.count() == 1


def test_a_push_through_the_sandbox_calls_no_other_server(world, drain, monkeypatch):
    resolved = []
    resolve = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *args, **more: resolved.append(host) or resolve(host, *args, **more)
    )
    publish(**ONLY_PUSH)
    before = set(threading.enumerate())
    drain()
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=0.2)

    assert world.push.count() == 1
    assert [host for host in resolved if "google" in str(host)] == []


def test_an_unsubscribed_number_is_not_tried_again(world, drain):
    publish(**ONLY_SMS | {"customer_phone": "+15005550004"})
    drain()

    assert DeadLetter.objects.get().error_class == "RecipientRefused"
    assert Notification.objects.get().attempts == 1


def test_the_broker_sees_no_personal_data(world, drain):
    message_id = publish(tracking_number="TR1")
    relay.drain()

    bodies = []
    with current_app.connection_for_read() as broker:
        for name in ("email", "sms", "push"):
            message = current_app.amqp.queues[name](broker.default_channel).get()
            args, kwargs, _ = message.decode()
            assert args == []
            assert sorted(kwargs) == ["message_id", "order_id"]
            assert kwargs["message_id"] == str(message_id)
            bodies.append(f"{message.body} {message.headers}")
            message.ack()
    for private in ("ada@example.com", "Ada Example", "+447700900123", "device-ada", "TR1"):
        assert private not in " ".join(bodies)


def test_retention_keeps_the_messages_of_unsent_notifications(world, drain):
    sent = publish(**ONLY_SMS)
    drain()
    with world.sms.failing(fault="rate_limit"):
        open_one = publish(**ONLY_SMS)
        drain()

    held = {pk for query in registry.holds() for pk in query.values_list("message_id", flat=True)}
    assert open_one in held
    assert sent not in held


def test_giving_up_an_unreadable_message_changes_nothing(db):
    services.mark_failed(channel="email", message_id="no id", something="else")
    services.mark_failed(channel="email")


def test_a_command_sends_a_test_text(world):
    for channel, to in (("email", "ops@example.com"), ("sms", "+447700900999"), ("push", "device-ops")):
        out = StringIO()
        call_command("send_test_notification", "--channel", channel, "--to", to, stdout=out)
        assert f"{channel} accepted it as" in out.getvalue()

    with pytest.raises(CommandError, match="did not accept it"):
        call_command("send_test_notification", "--channel", "sms", "--to", "+15005550001")
    assert (world.smtp.count(), world.sms.count(), world.push.count()) == (1, 1, 1)


def test_channels_are_built_once_per_process(world):
    assert channels.get("sms") is channels.get("sms")


@pytest.mark.parametrize(
    ("state", "outcome", "error"),
    [
        ("queued", "sent", ""),
        ("undelivered", "sent", ""),
        ("failed", "failed", "RequestRefused"),
        ("levitating", "sending", "OutcomeUnknown"),
    ],
)
def test_every_status_of_a_text_message_has_its_meaning(world, drain, state, outcome, error):
    with world.sms.failing(fault="state", state=state, times=1):
        publish(**ONLY_SMS)
        drain()

    notification = Notification.objects.get()
    if state == "levitating":  # it may have been sent, so the look-up finds it, and it is not sent again
        assert world.sms.count() == 1
        assert Attempt.objects.filter(error__contains="'levitating'").exists()
    else:
        assert (notification.status, error in notification.error) == (outcome, True)
