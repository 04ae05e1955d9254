"""Shipments through the warehouse's JSON API over HTTP."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import requests
from django.conf import settings

from orders.ports import OutcomeUnknown, Parcel, ShipmentRefused
from outbox.resilience import Outage, Permanent, Transient, breaker


class WarehouseRequestRefused(Permanent):
    """The warehouse refuses the request itself, not the shipment: a wrong token or a malformed order."""


class HttpWarehouse:
    """`orders.ports.Warehouse` on `POST /shipments` with an idempotency key."""

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
            answer = _json(self._post(body, idempotency_key))
        return Parcel(id=answer["id"], carrier=answer["carrier"], tracking_number=answer["tracking_number"])

    def _post(self, body: dict[str, Any], key: str) -> requests.Response:
        try:
            response = self._session.post(
                self._url, json=body, headers={"Idempotency-Key": key}, timeout=self._timeout
            )
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


def _check(response: requests.Response) -> None:
    status = response.status_code
    if status in (200, 201):
        return
    if status in (429, 503):
        seconds = response.headers.get("Retry-After", "")
        wait = dt.timedelta(seconds=int(seconds)) if seconds.isdigit() else None
        raise Outage(f"the warehouse answered {status}", retry_after=wait)
    if status == 409:
        raise Transient("a request with this key is in flight at the warehouse")
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
