"""A client with a token, a product to order, and unused rates."""

from __future__ import annotations

import pytest

from orders.models import Product
from tests.factories import ProductFactory
from tests.orders.api.client import (
    ApiClient,
    clear_limits,
)


@pytest.fixture(autouse=True)
def _fresh_limits():
    clear_limits()


@pytest.fixture
def api(db) -> ApiClient:
    return ApiClient()


@pytest.fixture
def mug(db) -> Product:
    return ProductFactory(sku="MUG-01", name="Mug", price_minor=250)
