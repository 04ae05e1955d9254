"""What logs and error reports leave out, in any context; ids stay readable."""

from __future__ import annotations

import base64
import json
import secrets
import string
from urllib.parse import quote, quote_plus

import pytest
from django.test import override_settings
from hypothesis import assume, example, given
from hypothesis import strategies as st

from orderflow.observability import redaction
from orders.clients import tokens

URL_SAFE = string.ascii_letters + string.digits + "-_"
NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=12)


def random_text(alphabet, *, least=8, most=60):
    return st.text(alphabet, min_size=least, max_size=most)


@st.composite
def emails(draw):
    mailbox = draw(
        st.text(string.ascii_letters + string.digits + "!#$%&*+/=?^_`{|}~.-éß", min_size=1, max_size=30)
    )
    domain = ".".join(draw(st.lists(NAMES, min_size=1, max_size=3)))
    return f"{mailbox}@{domain}.example"


@st.composite
def phones(draw):
    number = draw(st.sampled_from("123456789")) + draw(st.text("0123456789", min_size=7, max_size=13))
    gap = draw(st.sampled_from(["", " ", "-", ".", "\u00a0"]))
    parts = [number[:2], number[2:5], number[5:]]
    return draw(st.sampled_from(["+", "00"])) + gap.join(parts)


@st.composite
def cards(draw):
    number = draw(st.text("0123456789", min_size=13, max_size=19))
    gap = draw(st.sampled_from(["", " ", "-"]))
    return gap.join(number[i : i + 4] for i in range(0, len(number), 4))


TOKENS = st.binary(min_size=32, max_size=32).map(
    lambda raw: "of_live_" + base64.urlsafe_b64encode(raw).decode().rstrip("=")
)
PASSWORDS = random_text(URL_SAFE + "!$%^*()+=.,~@/:?#")


@st.composite
def with_its_secret(draw):
    """A text with a secret, and the part of it that must not be readable."""
    kind = draw(st.sampled_from(sorted(KINDS)))
    secret, form = draw(KINDS[kind]), kind
    return form.format(secret), secret


KINDS = {
    "{}": st.one_of(emails(), phones(), cards(), TOKENS),
    "sk_test_{}": random_text(URL_SAFE),
    "rk_live_{}": random_text(URL_SAFE),
    "whsec_{}": random_text(string.ascii_letters + string.digits + "+/="),
    "pi_123_secret_{}": random_text(URL_SAFE),
    "ya29.{}": random_text(URL_SAFE),
    "Bearer {}": random_text(URL_SAFE + ".~+/="),
    "Authorization: Basic {}": st.binary(min_size=6).map(lambda raw: base64.b64encode(raw).decode()),
    "basic {}": st.binary(min_size=6).map(lambda raw: base64.b64encode(raw).decode()),
    "redis://:{}@cache:6379/0": PASSWORDS,
    "postgresql://orders:{}@db/orders": PASSWORDS,
    "amqps://guest:{}@broker;amqps://guest:x@other": PASSWORDS,
    "/admin/?password={}&next=1": random_text(URL_SAFE),
    "GET /v1/orders?email={} HTTP/1.1": emails().map(quote),
    "to {} and on": emails().map(lambda email: quote(email, safe="")),
    "twice {} encoded": emails().map(lambda email: quote(quote(email, safe=""), safe="")),
    "form body phone={}": phones().map(quote_plus),
    "PGPASSWORD={} psql": random_text(URL_SAFE),
    "SECRET_KEY: '{}'": random_text(URL_SAFE + " $!(#"),
    '{{"password": "{}"}}': random_text(URL_SAFE + " $!&"),
    '{{\\"token\\": \\"{}\\"}}': random_text(URL_SAFE),
    "Cookie: sessionid={}; other=1": random_text(string.ascii_lowercase + string.digits),
    "csrftoken={}": random_text(string.ascii_letters + string.digits),
    "Key (customer_email)=({}) already exists.": emails(),
}  # fmt: skip


@given(with_its_secret(), NAMES, NAMES)
@example(("redis://:a-password@cache", "a-password"), "a", "b")
@example(("victim%40example.com", "victim"), "a", "b")
@example(("?password=hunter-22", "hunter-22"), "a", "b")
@example(("+44 7700 900 123", "900 123"), "a", "b")
@example(("0044 (0)7700 900123", "900123"), "a", "b")
def test_a_secret_of_any_kind_that_we_make_or_read_is_left_out(held, before, after):
    text, secret = held
    assume(secret not in f"{before} {after}")
    line = json.dumps(redaction.redacted({"event": f"{before} {text} {after}", "deep": [{"x": (text,)}]}))

    assert secret not in line
    assert json.dumps(secret)[1:-1] not in line


@given(st.lists(with_its_secret(), min_size=1, max_size=8))
def test_several_secrets_in_one_text_are_left_out(held):
    line = redaction.redacted_text("; ".join(text for text, _ in held))

    assert [secret for _, secret in held if secret in line] == []


@given(TOKENS, st.integers(0, 20_000), st.integers(0, 20_000))
def test_the_cut_of_a_long_text_leaves_no_part_of_a_secret(token, before, after):
    line = redaction.redacted_text("x " * before + f"Bearer {token} ada@example.com" + " y" * after)

    assert token[8:20] not in line
    assert token[-12:] not in line
    assert "ada@" not in line


def test_the_tokens_of_our_own_api_are_left_out():
    for _ in range(500):
        secret = tokens._new_secret()
        kept = redaction.redacted_text(f"the token {secret} was refused")
        assert kept == "the token [redacted] was refused"


@override_settings(WAREHOUSE_TOKEN="fourteen-words", REDIS_URL="redis://:an%20odd%2Fone@cache/0")
def test_a_secret_of_the_settings_is_left_out_wherever_it_occurs():
    for secret in ("fourteen-words", "an%20odd%2Fone", "an odd/one"):
        assert secret not in redaction.redacted_text(f"the server said {secret!r} to us")


@pytest.mark.parametrize(
    "key", ["password", "Authorization", "api_key", "push_token", "sessionid", "query_string"]
)
def test_values_of_secret_keys_are_left_out_whatever_they_look_like(key):
    assert redaction.redacted({key: "plain", "n": 1}) == {key: redaction.REDACTED, "n": 1}


def test_objects_are_left_out_like_their_texts():
    class Customer:
        def __repr__(self):
            return "<ada@example.com>"

    class Broken:
        def __repr__(self):
            raise RuntimeError

    line = redaction.redacted({"error": ValueError("for ada@example.com"), "who": Customer(), "what": Broken()})

    assert "ada@" not in json.dumps(line)
    assert "cannot be shown: RuntimeError" in line["what"]


@given(st.uuids(), st.integers(0, 2**40), st.datetimes())
def test_ids_and_times_stay(uuid, number, moment):
    event = {
        "order_id": str(uuid),
        "key": f"order-{uuid}-charge",
        "trace": f"00-{secrets.token_hex(15)}ab-00f067aa0ba902b7-01",
        "text": f"order OF-{number % 10**9} of {moment.isoformat()}+00:00 ({uuid})",
        "seconds": 0.123456789012345,
        "id": uuid,
    }

    assert redaction.redacted(event) == event


def test_remembered_texts_are_searched_again_when_a_secret_is_configured(settings):
    text = "zebra-crossing was refused"
    assert redaction.redacted({"error": text}) == {"error": text}

    settings.SECRET_KEY = "zebra-crossing"
    assert redaction.redacted({"error": text}) == {"error": f"{redaction.REDACTED} was refused"}


def test_an_id_stays_whatever_its_digits_look_like():
    for text in ("00123456-7890-4234-8567-123456789012", "42424242-4242-4242-8242-424242424242"):
        assert redaction.redacted(text) == text


def test_an_id_that_is_a_secret_is_removed(settings):
    settings.SECRET_KEY = "6e0ba1b2-7d4e-4f5a-9c3d-2b1a0f9e8d7c"
    assert redaction.redacted(settings.SECRET_KEY) == redaction.REDACTED


def test_the_value_of_a_secret_key_is_removed_each_time():
    for value in ("first", "second", None):
        assert redaction.redacted({"api_key": value}) == {"api_key": value and redaction.REDACTED}
