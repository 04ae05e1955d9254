"""Shipments through the warehouse's JSON API over HTTP."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Any

import requests
from django.conf import settings

from orders.ports import CallInFlight, ListedParcel, OutcomeUnknown, Parcel, ShipmentRefused
from outbox.database import storable
from outbox.http import answers, bounded, retry_after, sending
from outbox.resilience import CredentialsRefused, Outage, Permanent, SettingsRefused, breaker

PAGE = 500
"""Shipments in one page of a list."""


SHIPPED = frozenset({"created", "packed", "shipped", "delivered"})
"""Statuses of a shipment that leaves, or has left; a missing status counts as the first one."""

NOT_THERE = (404, 405, 410)
"""Responses of a server that does not have this API; a server that has it includes a reason."""

NO_ADDRESS = (
    requests.exceptions.InvalidSchema,
    requests.exceptions.InvalidURL,
    requests.exceptions.MissingSchema,
)

UNSHIPPED = frozenset({"cancelled", "refused"})
"""Statuses of a shipment that never leaves. Every other status is an unknown outcome."""

REFUSED_DATA = frozenset({400, 422})
"""Statuses with which the warehouse, if it also sends a code, refuses to ship the order as described."""

KEY_CODES = frozenset({"key_missing", "key_too_long", "key_reused"})
"""Codes that concern the call: the state of the shipment is unknown, and a parcel may be on its way."""

LONGEST_STATUS = 50
"""Length of an unknown status that an error quotes."""


class WarehouseRequestRefused(Permanent):
    """The warehouse, or something in between, refuses the call without mentioning the shipment."""


class HttpWarehouse:
    """`orders.ports.Warehouse` on `POST /shipments` with an idempotency key, and `GET /shipments`."""

    def __init__(self) -> None:
        self._url = f"{settings.WAREHOUSE_URL.rstrip('/')}/shipments"
        timeout = settings.PROVIDER_TIMEOUT.total_seconds()
        self._timeout = (min(2.0, timeout), timeout)
        self._session = bounded.bound(requests.Session(), seconds=timeout)
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
            answer = _json(self._ask("GET", params={"key": idempotency_key}))
        with _reading():
            found = answers.items(answer["data"])
            with contextlib.suppress(ShipmentRefused):
                return _parcel(found[0]) if found else None
        return None

    def shipments(self, *, since: dt.datetime | None) -> Iterator[ListedParcel]:
        """See `orders.ports.Warehouse.shipments`."""
        asked = {"limit": str(PAGE)} | ({"since": since.isoformat()} if since else {})
        pages = answers.Pages("the warehouse's")
        while True:
            with breaker("warehouse").guard():
                page = _json(self._ask("GET", params=asked))
            with _reading():
                listed = [_listed(shipment) for shipment in answers.items(page["data"])]
                has_more = bool(page["has_more"])
            yield from listed
            if not has_more:
                return
            asked["after"] = pages.continue_after(listed[-1].id if listed else "")

    def _ask(self, method: str, **request: Any) -> requests.Response:
        try:
            response = self._session.request(method, self._url, timeout=self._timeout, **request)
        except requests.exceptions.TooManyRedirects as failure:
            raise _elsewhere("it leads elsewhere") from failure
        except NO_ADDRESS as failure:
            raise _elsewhere("it has no valid address") from failure
        except requests.exceptions.ConnectionError as failure:
            if invalid := sending.invalid_certificate(failure):
                raise Outage(f"the warehouse's certificate is not valid: {invalid}") from failure
            if sending.was_never_sent(failure):
                raise Outage("the warehouse does not respond") from failure
            raise OutcomeUnknown("the connection to the warehouse broke before its response") from failure
        except requests.exceptions.RequestException as failure:
            raise OutcomeUnknown("the warehouse did not respond in time") from failure
        _check_able(response)
        if response.status_code not in (200, 201):
            refusal = _refusal(response)
            if method == "POST":  # the failure of a query says nothing about the parcel
                _check_shipment(response.status_code, refusal)
            raise _call_refused(response.status_code, refusal)
        return response


def _reading() -> contextlib.AbstractContextManager[None]:
    return answers.reading("the warehouse's", OutcomeUnknown)


def _parcel(answer: Any) -> Parcel:
    """
    Return the shipment that a response describes. Carrier and contents may be missing.

    Raises:
        ShipmentRefused: if it never leaves.
        OutcomeUnknown: if it cannot be identified, or it is unknown whether it leaves.
    """
    with _reading():
        status = answer.get("status", "created")
        if status in UNSHIPPED:
            raise ShipmentRefused(f"the warehouse has {status} the shipment")
        if status not in SHIPPED:
            raise OutcomeUnknown(
                f"the warehouse's shipment is {storable.text(status, longest=LONGEST_STATUS)!r},"
                " which is an unknown status"
            )
        return Parcel(
            id=answers.identifier(answer.get("id")),
            carrier=answer.get("carrier"),
            tracking_number=answer.get("tracking_number"),
            order_number=answer.get("order_number"),
            country=answer.get("country"),
            lines=_lines(answer.get("lines")),
        )


def _listed(shipment: Any) -> ListedParcel:
    return ListedParcel(
        id=answers.identifier(shipment["id"]),
        carrier=shipment.get("carrier"),
        tracking_number=shipment.get("tracking_number"),
        order_id=shipment.get("order_id"),
        idempotency_key=shipment.get("idempotency_key"),
        made_at=answers.moment(shipment["created_at"]),
    )


def _lines(lines: Any) -> tuple[tuple[str, int], ...]:
    """The contents of a parcel; empty if they cannot be read. Only a restore needs them."""
    with contextlib.suppress(*answers.UNREADABLE):
        found = [(answers.identifier(line["sku"]), answers.amount(line["quantity"])) for line in lines]
        if all(quantity > 0 for _, quantity in found):
            return tuple(found)
    return ()


def _check_able(response: requests.Response) -> None:
    """
    Check that the warehouse was able to decide.

    Raises:
        Outage, CallInFlight, OutcomeUnknown: if it was not.
    """
    status = response.status_code
    if status in (429, 503):
        asked = retry_after.read(response.headers)
        raise Outage(f"the warehouse answered {status}{asked.remark}", retry_after=asked.wait)
    if status == 409:
        raise CallInFlight("a request with this key is in flight at the warehouse")
    if status >= 500:
        raise OutcomeUnknown(f"the warehouse answered {status}")


def _check_shipment(status: int, refusal: dict[str, Any]) -> None:
    """
    Raises:
        ShipmentRefused: if the warehouse will not ship this order.
    """
    if refusal.get("code") == "shipment_refused":
        raise ShipmentRefused(refusal.get("reason") or "no reason given")
    if status in REFUSED_DATA and (code := storable.identifier(refusal.get("code"))) and code not in KEY_CODES:
        # Repeating the call would not help: the customer gets the money back.
        why = storable.note(refusal.get("reason")) or code
        raise ShipmentRefused(f"the warehouse does not accept the order: {why}")


def _call_refused(status: int, refusal: dict[str, Any]) -> Exception:
    if status in (401, 403):
        return CredentialsRefused("the warehouse", settings="WAREHOUSE_TOKEN", answer=status)
    if status in NOT_THERE and not refusal.get("reason"):
        return _elsewhere(f"its address answered {status}")
    return WarehouseRequestRefused(f"the warehouse answered {status}: {refusal.get('reason', '')}")


def _elsewhere(why: str) -> SettingsRefused:
    return SettingsRefused(
        f"WAREHOUSE_URL is not the address of the warehouse's API: {why}", settings="WAREHOUSE_URL"
    )


def _refusal(response: requests.Response) -> dict[str, Any]:
    """The content of a refusal; empty if something in between has refused without JSON."""
    try:
        return _json(response)
    except OutcomeUnknown:
        return {}


def _json(response: requests.Response) -> dict[str, Any]:
    try:
        answer = response.json()
    except answers.UNREADABLE as unreadable:
        raise OutcomeUnknown("the warehouse's answer cannot be read") from unreadable
    if not isinstance(answer, dict):
        raise OutcomeUnknown("the warehouse's answer is not an object")
    return answer
