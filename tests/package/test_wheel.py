"""The wheel speaks of messages, workflows and keys: nothing in it names what this project does with them."""

from __future__ import annotations

import re
import sys
import zipfile

import pytest

from tests.package import environments
from tests.processes import ROOT

WORDS = re.compile(
    r"\b(orders|an order(?! by)|order (?:id|number)s?|order's|order_id|place_order|model-order|orderflow"
    r"|run\.py|notifications?|broadcasting|customers?|refund\w*|payments?|warehouse|parcels?|shipped|sku)\b",
    re.IGNORECASE,
)
"""What belongs to orders, to notifications and to the project around them."""

ALLOWED = {
    # The distribution is called `orderflow-outbox`.
    ("pyproject.toml", "orderflow"),
    ("README.md", "orderflow"),
    ("METADATA", "orderflow"),
    ("RECORD", "orderflow"),
    # Migrations are never edited; help texts of fields have been rewritten since.
    ("0001_outbox_inbox_dead_letters.py", "orders"),
    ("0001_outbox_inbox_dead_letters.py", "order's"),
    ("0003_verifications.py", "an order"),
    # That of PostgreSQL's NOTIFY.
    ("listener.py", "notification"),
}
"""Files by their names, and a word that may stand in them."""


def words_in(name: str, text: str) -> set[tuple[str, str]]:
    return {(name.rpartition("/")[2], found.lower()) for found in WORDS.findall(text)}


def sources():
    for path in sorted((ROOT / "outbox").rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(ROOT).as_posix(), path.read_text(errors="replace")


def test_the_sources_of_the_outbox_name_nothing_of_the_apps_above():
    found = {each for name, text in sources() for each in words_in(name, text)}

    assert sorted(found - ALLOWED) == []
    assert not {each for each in ALLOWED - found if each[0] not in ("METADATA", "RECORD")}, (
        "take it off the list"
    )


@pytest.mark.parametrize(
    "text",
    [
        "for an order of theirs",
        "the order's id",
        "orders.tasks.charge",
        "python3 run.py verify",
        "model-order .help",
    ],
)
def test_a_word_of_the_apps_above_is_found(text):
    assert words_in("outbox/any.py", text)


@pytest.mark.parametrize("text", ["ORDER BY created_at", "in the order of their times", "order_by(*order)"])
def test_the_order_of_rows_is_another_word(text):
    assert not words_in("outbox/any.py", text)


@pytest.mark.slow
def test_the_wheel_holds_the_app_whole_and_names_nothing_of_the_apps_above(tmp_path):
    try:
        built = environments.wheel(tmp_path, sys.executable)
    except environments.Missing as missing:
        pytest.skip(str(missing))
    with zipfile.ZipFile(built) as wheel:
        texts = {name: wheel.read(name).decode() for name in wheel.namelist()}

    assert sorted({each for name, text in texts.items() for each in words_in(name, text)} - ALLOWED) == []
    left_out = {"outbox/README.md", "outbox/pyproject.toml"}
    assert {name for name in texts if name.startswith("outbox/")} == {name for name, _ in sources()} - left_out
