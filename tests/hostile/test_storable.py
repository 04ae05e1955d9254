"""Any text, JSON value or exception can be stored, and remains recognisable."""

from __future__ import annotations

import json

import pytest
from django.db import connection
from hypothesis import given
from hypothesis import strategies as st

from outbox.database import storable
from outbox.dead_letters import burying
from outbox.models import DeadLetter
from outbox.resilience import Permanent, Transient
from tests.hostile.values import ANY, TEXTS


class Unprintable(Exception):
    def __str__(self):
        raise ValueError("not even this")

    __repr__ = __str__


def can_be_stored(text):
    return "\x00" not in text and text == text.encode(errors="replace").decode()


@given(TEXTS | ANY, st.integers(5, 500))
def test_any_value_becomes_a_text_of_its_length_that_can_be_stored(value, longest):
    for kept in (storable.text(value, longest=longest), storable.identifier(value)[:longest]):
        assert can_be_stored(kept)
        assert len(kept) <= longest


@given(TEXTS.filter(can_be_stored))
def test_a_text_that_can_be_stored_stays_as_it_is(text):
    assert storable.text(text) == text
    assert storable.json({text: [text]}) == {text: [text]}


@pytest.mark.parametrize(
    "value",
    [
        {"a\x00": "\ud800", "b": "\\u0000", "c": ["\x00", {"d": "\udfff\x00"}]},
        {"nan": float("nan"), "inf": [float("inf"), -float("inf")]},
        {"number": 10**5000, "less": -(10**5000), "kept": 2**70},
        {("a", 1): {1, 2}, None: b"\xff", 5: object(), "error": Unprintable()},
        ["x" * 1_000_000] * 10,
        list(range(100_000)),
        {str(number): {} for number in range(100_000)},
    ],
    ids=["texts", "NaN", "numbers", "no JSON", "long texts", "a long list", "many keys"],
)
@pytest.mark.django_db
def test_any_json_is_accepted_by_the_database(value):
    kept = json.dumps(storable.json(value), allow_nan=False)

    assert len(kept) < 2 * storable.LONGEST_JSON
    with connection.cursor() as cursor:
        cursor.execute("SELECT %s::jsonb", [kept])
        assert cursor.fetchone()


def test_a_value_without_end_ends():
    deep = here = []
    for _ in range(100_000):
        here.append([])
        here = here[0]
    round_about = {}
    round_about["again"] = round_about

    assert json.dumps(storable.json(deep)).count("[") <= storable.DEEPEST
    assert json.dumps(storable.json(round_about)).count("again") <= storable.DEEPEST


def test_two_long_ids_stay_distinct():
    one, other = storable.identifier("x" * 1000 + "1"), storable.identifier("x" * 1000 + "2")

    assert one != other
    assert len(one) == len(other) == storable.LONGEST_ID


@pytest.mark.parametrize("value", [None, "", True, 1.5, [], {}, float("nan")])
def test_a_value_that_is_not_an_id_gives_none(value):
    assert storable.identifier(value) == ""


@pytest.mark.django_db
def test_an_error_with_all_that_led_to_it_becomes_a_dead_letter():
    try:
        try:
            try:
                raise Unprintable
            except Unprintable as first:
                raise ValueError("told \x00 by \ud83d them" + "y" * 100_000) from first
        except ValueError as second:
            raise KeyError(10**5000, "\x00") from second
    except KeyError as error:
        burying.bury(
            burying.Failure.of(
                error, source="task", consumer="a\x00b", payload={"\x00": float("nan")}, key="\ud800" * 500
            )
        )

    [dead_letter] = DeadLetter.objects.all()
    assert dead_letter.error_class == "KeyError"
    assert dead_letter.traceback.endswith("\n")
    assert (dead_letter.consumer, dead_letter.payload) == ("a\\x00b", {"\\x00": "nan"})


@pytest.mark.parametrize("kind", [Transient, Permanent])
def test_anticipated_errors_can_be_stored_from_the_first(kind):
    error = kind("told \x00 by \ud83d them" + "y" * 100_000)

    assert can_be_stored(str(error))
    assert len(str(error)) == storable.LONGEST_NOTE
