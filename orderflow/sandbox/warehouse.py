"""A warehouse with a small JSON API: request a shipment under a key, look it up, list what was shipped."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import hashlib
import json
import re
import secrets
import string
import time
from typing import Any

from . import ledger as ledgers
from .control import Control
from .idempotency import LONGEST_KEY, Effect, KeyInFlight, KeyReused, Keys
from .ledger import Condition, Ledger
from .messages import Answer, Refusal, Request, json_answer
from .provider import Provider, route

CARRIER = "Sandbox Post"
# A SKU with this prefix is in the catalogue but is never shipped.
UNSHIPPABLE = "NOSHIP-"
LARGEST_PAGE = 500
ALPHABET = string.digits + string.ascii_uppercase


def create(arguments: argparse.Namespace, control: Control) -> Warehouse:
    return Warehouse(control.ledger, token=arguments.token, refused_countries=arguments.refuse_country)


class WarehouseRefusal(Refusal):
    def __init__(self, status: int, code: str, reason: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.code = code
        self.reason = reason
        self.headers = headers

    def answer(self) -> Answer:
        return json_answer(self.status, {"code": self.code, "reason": self.reason}, self.headers)


class Warehouse(Provider):
    name = "warehouse"

    def __init__(
        self, ledger: Ledger, *, token: str | None = None, refused_countries: list[str] | None = None
    ) -> None:
        super().__init__(ledger)
        self._token = token
        self._refused_countries = {country.upper() for country in refused_countries or []}
        # Kept forever: an order must not be shipped twice, however late the request is repeated.
        self._keys = Keys(ledger, lifetime=None)
        self.routes = [
            route("POST", "/shipments", self.ship),
            route("GET", "/shipments", self.look_up_or_list),
            route("GET", "/shipments/{id}", self.show),
        ]

    def answer(self, request: Request) -> Answer:
        scheme, _, token = (request.headers.get("Authorization") or "").partition(" ")
        token = token.strip()
        known = token and (self._token is None or secrets.compare_digest(token.encode(), self._token.encode()))
        if scheme.lower() != "bearer" or not known:
            return WarehouseRefusal(
                401,
                "unauthorized",
                "Send a valid token: Authorization: Bearer TOKEN.",
                {"WWW-Authenticate": "Bearer"},
            ).answer()
        return super().answer(request)

    def failure(self, status: int, message: str) -> Answer:
        codes = {404: "not_found", 405: "method_not_allowed", 429: "rate_limited"}
        code = codes.get(status, "unavailable" if status >= 500 else "bad_request")
        return WarehouseRefusal(status, code, message).answer()

    def ship(self, request: Request) -> Answer:
        key = self.key_of(request)
        if not key:
            raise WarehouseRefusal(
                400, "key_missing", "Send the header Idempotency-Key, so that nothing ships twice."
            )
        if len(key) > LONGEST_KEY:
            raise WarehouseRefusal(
                400, "key_too_long", f"An Idempotency-Key has at most {LONGEST_KEY} characters."
            )
        body = _body(request)
        order = _order(body)
        fingerprint = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        try:
            answer, replayed = self._keys.once(
                key,
                endpoint="/shipments",
                fingerprint=fingerprint,
                act=lambda: self._decide(key, order, request.state or "created"),
                pause=request.pause,
            )
        except KeyInFlight:
            raise WarehouseRefusal(
                409,
                "key_in_use",
                "A request with this Idempotency-Key is still being worked on.",
                {"Retry-After": "1"},
            ) from None
        except KeyReused:
            raise WarehouseRefusal(
                422, "key_reused", "This Idempotency-Key was used before, for a different shipment."
            ) from None
        if replayed:
            answer.headers["Idempotent-Replayed"] = "true"
            if answer.status == 201:
                answer.status = 200
        return answer

    def look_up_or_list(self, request: Request) -> Answer:
        if key := request.query.get("key"):
            found = self.ledger.find("shipment", ledgers.labelled("key", key))
            return json_answer(200, {"data": [entry.document for entry in found]})
        return self._list(request)

    def _list(self, request: Request) -> Answer:
        """All shipments, or those since a time, oldest first, in pages."""
        conditions: list[Condition] = []
        if since := request.query.get("since"):
            conditions.append(("recorded_at >= ?", (_moment(since),)))
        if after := request.query.get("after"):
            last = self.ledger.get("shipment", after)
            if last is None:
                raise WarehouseRefusal(400, "bad_request", f"There is no shipment {after} to go on after.")
            conditions.append(ledgers.newer_than(last.seq))
        limit = _limit(request.query.get("limit", str(LARGEST_PAGE)))
        found = self.ledger.find("shipment", *conditions, limit=limit + 1, oldest_first=True)
        data = [{**entry.document, "idempotency_key": entry.key} for entry in found[:limit]]
        return json_answer(200, {"data": data, "has_more": len(found) > limit})

    def show(self, request: Request) -> Answer:
        entry = self.ledger.get("shipment", request.path_values["id"])
        if entry is None:
            raise WarehouseRefusal(404, "not_found", "There is no such shipment.")
        return json_answer(200, entry.document)

    def _decide(self, key: str, order: dict[str, Any], status: str) -> Effect:
        if reason := self._reason_against(order):
            refusal = {"code": "shipment_refused", "reason": reason}
            seq = self.ledger.record("refusal", f"refusal-{key}", {**refusal, **order}, key=key)
            return Effect(json_answer(422, refusal), seq)
        shipment = {
            "id": f"shp_{secrets.token_hex(12)}",
            "tracking_number": f"SP{''.join(secrets.choice(ALPHABET) for _ in range(10))}{order['country']}",
            "carrier": CARRIER,
            "status": status,
            "created_at": ledgers.as_iso(time.time()),
            **order,
        }
        seq = self.ledger.record("shipment", shipment["id"], shipment, key=key, labels=[("key", key)])
        return Effect(json_answer(201, shipment, {"Location": f"/shipments/{shipment['id']}"}), seq)

    def _reason_against(self, order: dict[str, Any]) -> str | None:
        for line in order["lines"]:
            if line["sku"].startswith(UNSHIPPABLE):
                return f"{line['sku']} cannot be shipped."
        if order["country"] in self._refused_countries:
            return f"Nothing is shipped to {order['country']}."
        return None


def _moment(text: str) -> float:
    moment = None
    with contextlib.suppress(ValueError):
        moment = dt.datetime.fromisoformat(text)
    if moment is None or moment.tzinfo is None:
        raise WarehouseRefusal(
            400, "bad_request", '"since" must be a time with its zone: 2026-01-31T12:00:00+00:00.'
        )
    return moment.timestamp()


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 5 and 1 <= int(text) <= LARGEST_PAGE):
        raise WarehouseRefusal(400, "bad_request", f'"limit" must be a number from 1 to {LARGEST_PAGE}.')
    return int(text)


def _body(request: Request) -> dict[str, Any]:
    try:
        body = request.json()
    except ValueError:
        raise WarehouseRefusal(400, "bad_request", "The body must be a JSON object.") from None
    if not isinstance(body, dict):
        raise WarehouseRefusal(400, "bad_request", "The body must be a JSON object.")
    return body


def _order(body: dict[str, Any]) -> dict[str, Any]:
    country = body.get("country")
    if not isinstance(country, str) or not re.fullmatch(r"[A-Z]{2}", country):
        raise WarehouseRefusal(400, "bad_request", '"country" must be two capital letters, as in "GB".')
    lines = body.get("lines")
    if not isinstance(lines, list) or not lines:
        raise WarehouseRefusal(400, "bad_request", '"lines" must be a list with at least one line.')
    return {
        "order_id": _text(body, "order_id"),
        "order_number": _text(body, "order_number"),
        "country": country,
        "lines": [_line(line) for line in lines],
    }


def _line(line: object) -> dict[str, Any]:
    if not isinstance(line, dict):
        raise WarehouseRefusal(400, "bad_request", 'A line must be an object: {"sku": "A1", "quantity": 2}.')
    quantity = line.get("quantity")
    if isinstance(quantity, bool) or not isinstance(quantity, int) or quantity < 1:
        raise WarehouseRefusal(400, "bad_request", '"quantity" must be a whole number, 1 or more.')
    return {"sku": _text(line, "sku"), "quantity": quantity}


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value.strip():
        raise WarehouseRefusal(400, "bad_request", f'"{name}" must be a text and not empty.')
    return value
