"""Text messages, sent and looked up with Twilio's own SDK."""

from __future__ import annotations

import datetime as dt

import pytest
from twilio.base.exceptions import TwilioRestException

from orderflow.sandbox.launch import Sandbox

from .clients import ACCOUNT, SENDER, ask, twilio_client

ADA = "+447700900001"


def test_a_message_is_queued_and_recorded(sms: Sandbox) -> None:
    message = twilio_client(sms).messages.create(to=ADA, from_=SENDER, body="Order OF-1 is on its way ✓")

    assert message.sid.startswith("SM")
    assert len(message.sid) == 34
    assert (message.status, message.to, message.from_, message.num_segments) == ("queued", ADA, SENDER, "1")
    assert abs(message.date_created - dt.datetime.now(dt.UTC)) < dt.timedelta(seconds=10)
    [entry] = sms.ledger()
    assert (entry["kind"], entry["sid"], entry["to"], entry["body"]) == (
        "sms",
        message.sid,
        ADA,
        "Order OF-1 is on its way ✓",
    )


def test_a_message_sent_twice_is_two_messages(sms: Sandbox) -> None:
    client = twilio_client(sms)
    sids = {client.messages.create(to=ADA, from_=SENDER, body="Hello").sid for _ in range(2)}

    assert {entry["sid"] for entry in sms.ledger()} == sids
    assert len(sids) == 2


@pytest.mark.parametrize(
    ("body", "segments"),
    [("x" * 160, "1"), ("x" * 161, "2"), ("✓" * 70, "1"), ("✓" * 71, "2"), ("£" * 307, "3")],
)
def test_long_messages_are_sent_in_segments(sms: Sandbox, body: str, segments: str) -> None:
    assert twilio_client(sms).messages.create(to=ADA, from_=SENDER, body=body).num_segments == segments


def test_a_message_can_be_looked_up(sms: Sandbox) -> None:
    client = twilio_client(sms)
    sid = client.messages.create(to=ADA, from_=SENDER, body="Hello").sid

    found = client.messages(sid).fetch()

    assert (found.status, found.body) == ("delivered", "Hello")
    assert found.date_sent is not None
    with pytest.raises(TwilioRestException) as raised:
        client.messages("SM" + "0" * 32).fetch()
    assert (raised.value.status, raised.value.code) == (404, 20404)


def test_messages_are_listed_newest_first_by_recipient_and_day(sms: Sandbox) -> None:
    client = twilio_client(sms)
    sids = [client.messages.create(to=ADA, from_=SENDER, body=str(number)).sid for number in range(5)]
    client.messages.create(to="+447700900002", from_=SENDER, body="another")
    today = dt.datetime.now(dt.UTC).date()

    def listed(**filters: object) -> list[str]:
        return [message.sid for message in client.messages.list(**filters)]

    assert listed(to=ADA) == sids[::-1]
    assert listed(to=ADA, page_size=2) == sids[::-1]
    assert listed(to=ADA, date_sent=today) == sids[::-1]
    assert listed(to=ADA, date_sent=today - dt.timedelta(days=1)) == []
    assert len(listed(date_sent_after=dt.datetime.now(dt.UTC) - dt.timedelta(minutes=1))) == 6
    assert listed(date_sent_before=dt.datetime.now(dt.UTC) - dt.timedelta(minutes=1)) == []
    assert len(listed(from_=SENDER, limit=4)) == 4


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"to": "+15005550001"}, 21211),
        ({"to": "+15005550002"}, 21612),
        ({"to": "+15005550003"}, 21408),
        ({"to": "+15005550004"}, 21610),
        ({"to": "+15005550009"}, 21614),
        ({"to": "07700 900001"}, 21211),
        ({"to": "+0123456789"}, 21211),
        ({"from_": "+15005550001"}, 21212),
        ({"from_": "+15005550007"}, 21606),
        ({"from_": "+15005550008"}, 21611),
        ({"to": ""}, 21604),
        ({"from_": ""}, 21603),
        ({"body": ""}, 21602),
        ({"body": "x" * 1601}, 21617),
    ],
)
def test_what_twilio_refuses_is_refused_with_its_error_code(
    sms: Sandbox, changed: dict[str, str], code: int
) -> None:
    message = {"to": ADA, "from_": SENDER, "body": "Hello"} | changed

    with pytest.raises(TwilioRestException) as raised:
        twilio_client(sms).messages.create(**message)

    assert (raised.value.status, raised.value.code) == (400, code)
    assert sms.ledger() == []


def test_errors_have_the_format_of_twilio(sms: Sandbox) -> None:
    sms.control(fault="rate_limit", retry_after=3, times=1)
    with pytest.raises(TwilioRestException) as raised:
        twilio_client(sms).messages.create(to=ADA, from_=SENDER, body="Hello")
    assert (raised.value.status, raised.value.code) == (429, 20429)

    with sms.failing(fault="error", status=503):
        answer = ask(
            sms, "POST", f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json", "", {"Authorization": "Basic eDp5"}
        )
    assert answer.json.keys() == {"code", "message", "more_info", "status"}
    assert answer.json["status"] == answer.status == 503


@pytest.mark.parametrize("credentials", [None, "Bearer x", "Basic eDo=", "Basic ???"])
def test_sending_requires_an_account(sms: Sandbox, credentials: str | None) -> None:
    headers = {"Authorization": credentials} if credentials else {}
    answer = ask(sms, "GET", f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json", headers=headers)

    assert (answer.status, answer.json["code"]) == (401, 20003)
