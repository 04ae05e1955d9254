"""Which failed requests were never sent, tested with real sockets and the library of the adapters."""

from __future__ import annotations

import socket
import threading

import pytest
import requests

from outbox.http import sending


def failure_of(url):
    with pytest.raises(requests.exceptions.RequestException) as caught:
        requests.post(url, timeout=(0.2, 0.5))
    return caught.value


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def address_of(server):
    return "http://{}:{}/".format(*server.getsockname())


def test_a_request_to_a_port_where_nobody_listens_was_never_sent():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = address_of(server)

    assert sending.was_never_sent(failure_of(address))


def test_a_request_to_a_name_that_does_not_exist_was_never_sent():
    assert sending.was_never_sent(failure_of("http://no-such-host.invalid/"))


def test_a_request_whose_connection_is_cut_may_have_been_sent(listening):
    cutting = threading.Thread(target=lambda: listening.accept()[0].close())
    cutting.start()

    assert not sending.was_never_sent(failure_of(address_of(listening)))
    cutting.join()


def test_a_request_that_is_not_answered_in_time_may_have_been_sent(listening):
    assert not sending.was_never_sent(failure_of(address_of(listening)))


def test_no_failure_and_failures_of_other_kinds_prove_nothing():
    assert not sending.was_never_sent(None)
    assert not sending.was_never_sent(ValueError("no"))
