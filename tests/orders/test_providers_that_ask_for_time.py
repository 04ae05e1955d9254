"""A provider that requests a pause gets it, but never for longer than an hour."""

from __future__ import annotations

import datetime as dt

import pytest

from notifications import channels
from notifications.models import Notification
from orders.models import Order
from outbox import testing
from outbox.http import retry_after
from outbox.models import Attempt
from outbox.resilience import SPREAD
from tests.conftest import close_breakers
from tests.factories import place
from tests.notifications.publishing import ONLY_PUSH, ONLY_SMS, publish
from tests.slow import but_first


@pytest.fixture(autouse=True)
def fresh_channels():
    channels.forget()
    yield
    channels.forget()


LONGEST_SPREAD = retry_after.LONGEST * (1 + SPREAD)
"""The longest wait, plus the spread that keeps waiting messages from returning at the same moment."""

PROVIDERS = ("payments", "warehouse", "sms", "push")
CALL = {"push": "messages:send"}
"""What the fault matches where not every request is meant: Google's tokens come from a separate server."""


def work_for(provider):
    if provider in ("payments", "warehouse"):
        place()
    else:
        publish(**(ONLY_SMS if provider == "sms" else ONLY_PUSH))


def is_done():
    done = [status == Order.Status.FULFILLED for status in Order.objects.values_list("status", flat=True)]
    sent = [status == "sent" for status in Notification.objects.values_list("status", flat=True)]
    return bool(done + sent) and all(done + sent)


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("value", but_first(["1734567890123", "60000", "9" * 20]))
def test_too_long_a_wait_is_shortened_visibly_to_an_hour(world, drain, provider, value):
    work_for(provider)
    with getattr(world, provider).failing(fault="rate_limit", retry_after=value, match=CALL.get(provider)):
        drain()
    [attempt] = Attempt.objects.all()
    assert attempt.outcome == Attempt.Outcome.WAITED
    assert "requested a wait of" in attempt.error
    assert attempt.next_try_at - attempt.failed_at <= LONGEST_SPREAD + dt.timedelta(seconds=1)

    testing.pass_time(LONGEST_SPREAD)
    close_breakers()
    drain()
    assert is_done()


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("value", but_first(["\u00b2", "-1", "soon"]))
def test_an_unreadable_wait_is_ignored(world, drain, provider, value):
    work_for(provider)
    with getattr(world, provider).failing(fault="rate_limit", retry_after=value, match=CALL.get(provider)):
        drain()
    assert set(Attempt.objects.values_list("outcome", flat=True)) == {Attempt.Outcome.WAITED}

    testing.pass_time(dt.timedelta(minutes=1))
    close_breakers()
    drain()
    assert is_done()


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_date_is_waited_for(world, drain, provider):
    work_for(provider)
    at = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=20)
    with getattr(world, provider).failing(
        fault="error",
        status=503,
        retry_after=at.strftime("%a, %d %b %Y %H:%M:%S GMT"),
        match=CALL.get(provider),
    ):
        drain()

    attempt = Attempt.objects.get()
    assert dt.timedelta(minutes=18) < attempt.next_try_at - attempt.failed_at < dt.timedelta(minutes=26)


@pytest.mark.slow
def test_a_token_server_that_is_busy_spends_no_attempts(world, drain):
    work_for("push")
    with world.push.failing(fault="error", status=503, match="/token"):
        drain()

    assert set(Attempt.objects.values_list("outcome", flat=True)) == {Attempt.Outcome.WAITED}
