"""Anonymous clients are distinguished by an address that they cannot choose."""

from __future__ import annotations

import pytest
from django.test import Client, RequestFactory

from orders.api.addresses import client_address
from tests.orders.api.client import ORDERS


@pytest.mark.parametrize(
    ("proxies", "forwarded", "address"),
    [
        (0, None, "10.0.0.1"),
        (0, "203.0.113.7", "10.0.0.1"),
        (1, "203.0.113.7", "203.0.113.7"),
        (1, "198.51.100.1, 203.0.113.7", "203.0.113.7"),
        (2, "198.51.100.1, 203.0.113.7,10.0.0.2", "203.0.113.7"),
        (2, "203.0.113.7", "10.0.0.1"),
        (1, None, "10.0.0.1"),
        (1, "", "10.0.0.1"),
        (1, "unknown", "10.0.0.1"),
        (1, "203.0.113.7:4711", "203.0.113.7"),
        (1, "2001:DB8:0::1", "2001:db8::1"),
        (1, "[2001:db8::1]:4711", "2001:db8::1"),
    ],
)
def test_the_address_is_what_the_outermost_trusted_proxy_saw(settings, proxies, forwarded, address):
    settings.TRUSTED_PROXIES = proxies
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}

    assert client_address(RequestFactory().get("/", headers=headers, REMOTE_ADDR="10.0.0.1")) == address


def statuses(*forwarded: str) -> list[int]:
    return [
        Client().get(ORDERS, headers={"X-Forwarded-For": seen}, REMOTE_ADDR="10.0.0.1").status_code
        for seen in forwarded
    ]


def test_clients_behind_a_trusted_proxy_have_a_rate_each(settings, db):
    settings.TRUSTED_PROXIES, settings.API_RATE_LIMIT = 1, "2/minute"

    assert statuses("192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2") == [401, 401, 429, 401]


@pytest.mark.parametrize("proxies", [0, 1])
def test_made_up_addresses_do_not_evade_the_limit(settings, db, proxies):
    settings.TRUSTED_PROXIES, settings.API_RATE_LIMIT = proxies, "2/minute"
    made_up = [f"198.51.100.{number}, 192.0.2.1" for number in range(3)]

    assert statuses(*made_up) == [401, 401, 429]
