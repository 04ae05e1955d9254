"""
Card numbers are recognised however they are written; ids, times and phone numbers are not mistaken for them.
"""

from __future__ import annotations

import random
import time
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orders import cards

NUMBERS = [
    "4242424242424242",
    "4222222222222",
    "378282246310005",
    "30569309025904",
    "6011111111111117",
    "3530111333300000",
    "5555555555554444",
    "2223003122003222",
    "6205500000000000004",
    "5018000000000009",
]
FORMS = {
    "bare": "{}",
    "in text": "my card is {}, thanks",
    "after letters": "pm_{}x",
    "spaces": lambda number: " ".join(number[i : i + 4] for i in range(0, len(number), 4)),
    "dashes": lambda number: "-".join(number[i : i + 4] for i in range(0, len(number), 4)),
    "dots": lambda number: ".".join(number[i : i + 4] for i in range(0, len(number), 4)),
    "underscores": lambda number: "_".join(number[i : i + 4] for i in range(0, len(number), 4)),
    "no-break spaces": lambda number: "\xa0".join(number[i : i + 4] for i in range(0, len(number), 4)),
    "en dashes": lambda number: "\u2013".join(number[i : i + 4] for i in range(0, len(number), 4)),
    "zero-width": lambda number: "\u200b".join(number),
    "joiners": lambda number: "\u200d".join(number),
    "encoded spaces": lambda number: "%20".join(number[i : i + 4] for i in range(0, len(number), 4)),
    "one by one": " ".join,
    "in the groups of American Express": lambda number: (
        f"{number[:4]} {number[4:10]} {number[10:]}" if len(number) in (14, 15) else number
    ),
    "dashes in spaces": " - ".join,
    "after a number": "12 {}",
    "before a number": "{} 12",
    "full-width": lambda number: "".join(chr(0xFF10 + int(digit)) for digit in number),
    "Arabic": lambda number: "".join(chr(0x660 + int(digit)) for digit in number),
    "bold": lambda number: "".join(chr(0x1D7CE + int(digit)) for digit in number),
}


def written(form, number):
    return FORMS[form].format(number) if isinstance(FORMS[form], str) else FORMS[form](number)


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("form", FORMS)
def test_a_card_number_is_detected_however_it_is_written(form, number):
    assert cards.are_in(written(form, number))


@pytest.mark.parametrize("number", NUMBERS)
def test_a_wrong_check_digit_is_not_a_card_number(number):
    assert not cards.are_in(number[:-1] + str((int(number[-1]) + 1) % 10))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Ada Example",
        "cart-8812",
        "0000000000000000",
        "424242424242",
        "42424242424242424242",
        "order 1042 of 3 items",
        "1732900000000",
        "20261129000000000007",
        "+447700900123",
        "drill-48536-014439-12",
        "2026-11-30-0001-27",
    ],
)
def test_other_numbers_are_not_card_numbers(text):
    assert not cards.are_in(text)


def test_references_of_several_numbers_are_not_card_numbers():
    for run in range(100_000, 100_300):
        assert not any(cards.are_in(f"48536-{run}-{number}") for number in range(10, 99))


def test_ids_and_times_are_not_card_numbers():
    chance = random.Random(7)
    for _ in range(20_000):
        some = uuid.UUID(int=chance.getrandbits(128), version=4)
        assert not cards.are_in(str(some))
        assert not cards.are_in(some.hex + "a")
        assert not cards.are_in(f"cart-{chance.randrange(1_600_000_000_000, 2_000_000_000_000)}")
        assert not cards.are_in(f"20261129{chance.randrange(10**8):08}")


@given(st.text(max_size=30), st.sampled_from(NUMBERS), st.text(max_size=30))
def test_surrounding_text_hides_no_card_number(before, number, after):
    around = [text for text in (before, after) if text and text[0 if text is after else -1].isdigit()]

    assert around or cards.are_in(f"{before}\n\n\n\n{number}\n\n\n\n{after}")


@pytest.mark.parametrize("text", ["4 " * 32_000, "4" * 64_000, "4-4 " * 16_000, "\u200d4" * 32_000])
def test_a_long_text_is_searched_quickly(text):
    began = time.thread_time()
    cards.are_in(text)

    assert time.thread_time() - began < 2
