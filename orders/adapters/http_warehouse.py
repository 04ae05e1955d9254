"""Shipments through the warehouse's JSON API over HTTP."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Any

import requests
from django.conf import settings

from orders.ports import CallInFlight, ListedParcel, OutcomeUnknown, Parcel, ShipmentRefused
from outbox.resilience import Outage, Permanent, breaker

PAGE = 500
"""Shipments in one page of a list."""


class WarehouseRequestRefused(Permanent):
    """The warehouse refuses the request itself, not the shipment: a wrong token or a malformed order."""


class HttpWarehouse:
    """`orders.ports.Warehouse` on `POST /shipments` with an idempotency key, and `GET /shipments`."""

    def __init__(self) -> None:
        self._url = f"{settings.WAREHOUSE_URL.rstrip('/')}/shipments"
        timeout = settings.PROVIDER_TIMEOUT.total_seconds()
        self._timeout = (min(2.0, timeout), timeout)
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers["Authorization"] = f"Bearer {settings.WAREHOUSE_TOKEN}"

    def ship(
        self,
        *,
        order_id: str,
        order_number: str,
        country: str,
        lines: Sequence[tuple[str, int]],
        idempotency_key: str,
    ) -> Parcel:
        """See `orders.ports.Warehouse.ship`."""
        body = {
            "order_id": order_id,
            "order_number": order_number,
            "country": country,
            "lines": [{"sku": sku, "quantity": quantity} for sku, quantity in lines],
        }
        with breaker("warehouse").guard():
            answer = _json(self._ask("POST", json=body, headers={"Idempotency-Key": idempotency_key}))
        return _parcel(answer)

    def look_up(self, *, idempotency_key: str) -> Parcel | None:
        """See `orders.ports.Warehouse.look_up`."""
        with breaker("warehouse").guard():
            found = _json(self._ask("GET", params={"key": idempotency_key}))["data"]
        return _parcel(found[0]) if found else None

    def shipments(self, *, since: dt.datetime | None) -> Iterator[ListedParcel]:
        """See `orders.ports.Warehouse.shipments`."""
        asked = {"limit": str(PAGE)} | ({"since": since.isoformat()} if since else {})
        while True:
            with breaker("warehouse").guard():
                page = _json(self._ask("GET", params=asked))
            for shipment in page["data"]:
                yield ListedParcel(
                    id=shipment["id"],
                    carrier=shipment["carrier"],
                    tracking_number=shipment["tracking_number"],
                    order_id=shipment["order_id"],
                    idempotency_key=shipment["idempotency_key"],
                    made_at=dt.datetime.fromisoformat(shipment["created_at"]),
                )
            if not page["has_more"]:
                return
            asked["after"] = page["data"][-1]["id"]

    def _ask(self, method: str, **request: Any) -> requests.Response:
        try:
            response = self._session.request(method, self._url, timeout=self._timeout, **request)
        except requests.exceptions.ConnectTimeout as failure:
            raise Outage("the warehouse does not answer") from failure
        except requests.exceptions.ConnectionError as failure:
            reason = getattr(failure.args[0] if failure.args else None, "reason", None)
            if type(reason).__name__ in ("NewConnectionError", "NameResolutionError"):
                raise Outage("the warehouse does not answer") from failure
            raise OutcomeUnknown("the connection to the warehouse broke before its answer") from failure
        except requests.exceptions.RequestException as failure:
            raise OutcomeUnknown("the warehouse did not answer in time") from failure
        _check(response)
        return response


def _parcel(answer: dict[str, Any]) -> Parcel:
    return Parcel(id=answer["id"], carrier=answer["carrier"], tracking_number=answer["tracking_number"])


def _check(response: requests.Response) -> None:
    status = response.status_code
    if status in (200, 201):
        return
    if status in (429, 503):
        seconds = response.headers.get("Retry-After", "")
        wait = dt.timedelta(seconds=int(seconds)) if seconds.isdigit() else None
        raise Outage(f"the warehouse answered {status}", retry_after=wait)
    if status == 409:
        raise CallInFlight("a request with this key is in flight at the warehouse")
    if status >= 500:
        raise OutcomeUnknown(f"the warehouse answered {status}")
    refusal = _json(response)
    if refusal.get("code") == "shipment_refused":
        raise ShipmentRefused(refusal.get("reason", "no reason given"))
    raise WarehouseRequestRefused(f"the warehouse answered {status}: {refusal.get('reason', '')}")


def _json(response: requests.Response) -> dict[str, Any]:
    try:
        answer = response.json()
    except ValueError as unreadable:
        raise OutcomeUnknown("the warehouse's answer cannot be read") from unreadable
    if not isinstance(answer, dict):
        raise OutcomeUnknown("the warehouse's answer is not an object")
    return answer
