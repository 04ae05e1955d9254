"""
Whatever one value of a provider's response is, the call ends soon and as its port documents, and its result can
be stored.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from notifications import channels
from notifications import ports as notification_ports
from outbox.database import storable
from outbox.resilience import Permanent, Transient
from tests.hostile import calls
from tests.hostile.answers import ANSWERS, Answer
from tests.hostile.values import ANY, CORPUS
from tests.slow import but_first

pytestmark = [pytest.mark.usefixtures("no_breakers"), pytest.mark.django_db]

SHARE = 16
"""
Every value of the corpus is tried at one in so many places of a response; with `--nightly` at every place.
"""

FURTHER = {"has_more": True, "next_page_uri": f"/2010-04-01/Accounts/AC{0:032}/Messages.json?Page=1"}
"""How lists announce another page, with values that announce one for ever."""


def outcome_of(name, made):
    """Return the result of a call, or the documented error that it raised."""
    try:
        return calls.CALLS[name](made)
    except calls.DOCUMENTED as anticipated:
        return str(anticipated)
    finally:
        channels.forget()  # so that an access token is requested again


def places_in(spoilt, name, made):
    """Return the places in the responses to a call."""
    spoilt.forget()
    outcome_of(name, made)
    return spoilt.places


def judge(spoilt, name, made, place, value):
    spoilt.spoil(place, value)
    try:
        outcome = outcome_of(name, made)
    except Exception as error:
        raise AssertionError(f"{name}: {place} as {value!r} ends in {type(error).__name__}: {error}") from error
    finally:
        sent = len(spoilt.requests)
        spoilt.heal()
    assert sent <= calls.MOST_REQUESTS, f"{name}: {place} as {value!r} asks {sent} times"
    assert not list(calls.faults_of(outcome)), f"{name}: {place} as {value!r}"


def judge_share(spoilt, name, share):
    made, values = calls.prepare(), list(CORPUS.values())
    places = places_in(spoilt, name, made)
    assert places, "the call asks nobody"
    for turn, place in enumerate(places):
        for value in values[turn % share :: share]:
            judge(spoilt, name, made, place, value)


def test_every_call_of_every_port_is_tried():
    tried = {name.partition(",")[0].partition(" ")[0] for name in calls.CALLS}

    assert set(calls.of_ports()) <= tried


@pytest.mark.parametrize("name", but_first(calls.CALLS, first=6))
def test_whatever_one_value_is_the_call_ends_as_its_port_defines(spoilt, name):
    judge_share(spoilt, name, SHARE)


@pytest.mark.slow
@pytest.mark.parametrize("name", but_first(calls.CALLS, first=8, others="nightly"))
def test_the_whole_corpus_in_every_answer(spoilt, name):
    judge_share(spoilt, name, 1)


@pytest.mark.slow
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_any_value_in_any_place(spoilt, data):
    made = calls.prepare()
    name = data.draw(st.sampled_from(sorted(calls.CALLS)))
    number, value = data.draw(st.integers(0, 1000)), data.draw(ANY)
    places = places_in(spoilt, name, made)
    judge(spoilt, name, made, places[number % len(places)], value)


@pytest.mark.parametrize("name", ["charges", "refunds", "shipments", "sent"])
def test_a_list_that_leads_in_a_circle_is_not_read_for_ever(spoilt, name):
    made = calls.prepare()
    [place] = [place for place in places_in(spoilt, name, made) if place.path[-1:] and place.path[0] in FURTHER]
    spoilt.spoil(place, FURTHER[place.path[0]], however_asked=True)

    assert "list" in outcome_of(name, made)
    assert 0 < len(spoilt.requests) <= 3


@pytest.mark.parametrize("elsewhere", ["@192.0.2.1/", ".example.com/", "://192.0.2.1/", ":80@192.0.2.1/"])
def test_a_redirect_sends_our_credentials_to_no_other_server(spoilt, elsewhere):
    made = calls.prepare()
    [place] = [place for place in places_in(spoilt, "sent", made) if place.path == ("next_page_uri",)]
    spoilt.spoil(place, elsewhere)

    assert isinstance(outcome_of("sent", made), str)
    assert (spoilt.struck, len(spoilt.requests) <= 2) == (1, True)  # later requests reach the sandbox


@pytest.mark.parametrize("name", but_first(calls.CALLS, first=6))
def test_an_unreadable_response_means_neither_done_nor_refused(spoilt, name):
    made = calls.prepare()
    for what, answer in ANSWERS.items():
        spoilt.answer(answer)
        try:
            with pytest.raises((Transient, Permanent)) as raised:
                pytest.fail(f"{name}: {what} ends in {calls.CALLS[name](made)!r}")
        finally:
            channels.forget()
            sent = len(spoilt.requests)
            spoilt.heal()
        assert sent <= 3, f"{name}: {what} asks {sent} times"
        problem = f"{name}: {what} ends in {raised.value!r}"
        assert not isinstance(raised.value, notification_ports.RecipientRefused), problem
        assert storable.is_storable(str(raised.value)), problem


REFUSED_QUESTION = Answer(422, b'{"code": "shipment_refused", "reason": "the key is no key"}')


@pytest.mark.parametrize("name", ["look_up of a parcel", "shipments"])
def test_a_refused_query_says_nothing_about_the_parcel(spoilt, name):
    """If it were taken for a parcel that never left, a shipped order would be cancelled and refunded."""
    made = calls.prepare()
    spoilt.answer(REFUSED_QUESTION)

    with pytest.raises(Permanent):
        calls.CALLS[name](made)
