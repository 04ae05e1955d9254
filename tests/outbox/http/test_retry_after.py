"""The forms of `Retry-After`, and the waits that follow."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.http import retry_after

NOW = dt.datetime(1994, 11, 6, 8, 49, 0, tzinfo=dt.UTC)
EPOCH = int(NOW.timestamp())


def wait(value, **headers):
    found = retry_after.read({"Retry-After": value, **headers}, now=NOW)
    return found.wait.total_seconds() if found.wait is not None else None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        (b"120", 120),
        (" 120 ", 120),
        ("2.5", 2.5),
        (120, 120),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 37),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 37),
        ("Sun Nov  6 08:49:37 1994", 37),
        ("Sun, 06 Nov 1994 08:48:00 GMT", 0),
        ("5, 10", 10),
        (["5", b"10", "7"], 10),
        ("Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:50:00 GMT", 60),
        ("20,Sun, 06 Nov 1994 08:49:37 GMT", 37),
    ],
)
def test_seconds_and_dates_are_read(value, seconds):
    assert wait(value) == seconds


def test_a_large_number_is_a_time_and_not_a_duration():
    later = dt.datetime(2024, 12, 19, tzinfo=dt.UTC)
    moment = str(int(later.timestamp()) + 90)

    assert retry_after.read({"Retry-After": moment}, now=later).wait == dt.timedelta(seconds=90)
    assert retry_after.read({"Retry-After": moment}, now=later + dt.timedelta(days=400)).wait == dt.timedelta()


@pytest.mark.parametrize(
    ("value", "requested"),
    [
        ("500000000000000000", "more than a year"),
        ("99999999999999999999999", "more than a year"),
        ("Fri, 31 Dec 9999 23:59:59 GMT", "more than a year"),
        ("86400", "1 day, 0:00:00"),
    ],
)
def test_a_limited_wait_is_stated_with_its_limit(value, requested):
    remark = retry_after.read({"Retry-After": value}, now=NOW).remark
    assert remark == f" and requested a wait of {requested}, limited to 1:00:00"


@pytest.mark.parametrize(
    "value",
    [None, "", "-5", "+5", "²", "٣", "1e3", "inf", "nan", "tomorrow", "20,076 days", "5;q=1", b"\xff", "12 Nov",
     "Mon, 01 Jan 10000 00:00:00 GMT", "2 Jan 99999999999999 00:00:00", "0x10", ",", "5,", []],
)  # fmt: skip
def test_an_unreadable_header_is_ignored(value):
    assert retry_after.read({"Retry-After": value}, now=NOW) == retry_after.RetryAfter()


@pytest.mark.parametrize(
    "value", ["3601", "60000", "1734567890", "9" * 20, "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT"]
)
def test_a_wait_that_is_too_long_is_limited_and_stated(value):
    found = retry_after.read({"Retry-After": value}, now=NOW)

    assert found.wait == retry_after.LONGEST
    assert found.requested > retry_after.LONGEST
    assert "1:00:00" in found.remark
    is_stated = found.requested < retry_after.LONGEST_STATED
    assert (str(found.requested) if is_stated else "more than a year") in found.remark
    assert retry_after.read({"Retry-After": "3600"}).remark == ""


def test_a_date_is_compared_with_the_providers_clock():
    assert wait("Sun, 06 Nov 2005 08:49:37 GMT", Date="Sun, 06 Nov 2005 08:49:07 GMT") == 30


def test_names_of_headers_have_no_case():
    assert retry_after.read({b"retry-AFTER": b"7"}, now=NOW).wait == dt.timedelta(seconds=7)
    assert retry_after.read(None) == retry_after.RetryAfter()


@given(st.text() | st.binary() | st.integers() | st.floats() | st.lists(st.text()) | st.none())
def test_no_value_ends_in_an_error_or_in_a_wait_beyond_the_longest(value):
    found = retry_after.read({"Retry-After": value, "Date": value}, now=NOW)

    assert found.wait is None or dt.timedelta() <= found.wait <= retry_after.LONGEST
