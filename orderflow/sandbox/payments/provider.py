"""The endpoints of the payments server: authentication, idempotency keys, and ledger entries."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import secrets
import time
from collections.abc import Callable
from typing import Any

from orderflow.sandbox import ledger as ledgers
from orderflow.sandbox.idempotency import LONGEST_KEY, Effect, KeyInFlight, KeyReused, Keys
from orderflow.sandbox.ledger import Condition, Entry, Ledger
from orderflow.sandbox.messages import Answer, Request, json_answer
from orderflow.sandbox.provider import Provider, route

from . import errors, intents, parameters, refunds, searches
from .errors import StripeError
from .intents import Intent
from .parameters import Parameters

Act = Callable[[Parameters, str | None], Effect]

INTENTS = "/v1/payment_intents"
REFUNDS = "/v1/refunds"
COMPARISONS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
LIST_PARAMETERS = frozenset(("created", "ending_before", "expand", "limit", "starting_after"))


class Payments(Provider):
    """
    A Stripe account in test mode.

    Args:
        key_lifetime: seconds until an idempotency key is dropped; Stripe keeps them for at least 24 hours.
        search_lag: seconds until a search finds a new payment; Stripe guarantees no read-after-write for it.
    """

    name = "payments"

    def __init__(self, ledger: Ledger, *, key_lifetime: float = 86_400, search_lag: float = 0) -> None:
        super().__init__(ledger)
        self._keys = Keys(ledger, lifetime=key_lifetime)
        self._search_lag = search_lag
        self.routes = [
            route("POST", INTENTS, self.create_intent),
            route("GET", INTENTS, self.list_intents),
            route("GET", f"{INTENTS}/search", self.search_intents),
            route("GET", f"{INTENTS}/{{id}}", self.show_intent),
            route("POST", f"{INTENTS}/{{id}}/confirm", self.confirm_intent),
            route("POST", f"{INTENTS}/{{id}}/cancel", self.cancel_intent),
            route("POST", REFUNDS, self.create_refund),
            route("GET", REFUNDS, self.list_refunds),
            route("GET", f"{REFUNDS}/{{id}}", self.show_refund),
        ]

    def answer(self, request: Request) -> Answer:
        refusal = _refusal_of_key(request)
        answer = super().answer(request) if refusal is None else refusal.answer()
        answer.headers["Request-Id"] = f"req_{secrets.token_hex(7)}"
        if version := request.headers.get("Stripe-Version"):
            answer.headers["Stripe-Version"] = version
        return answer

    def failure(self, status: int, message: str) -> Answer:
        return errors.of_status(status, message).answer()

    def create_intent(self, request: Request) -> Answer:
        def act(params: Parameters, key: str | None) -> Effect:
            intent = intents.create(params, state=request.state)
            labels = [(f"metadata:{name}", value) for name, value in intent["metadata"].items()]
            if intent["customer"]:
                labels.append(("customer", intent["customer"]))
            seq = self.ledger.record("payment_intent", intent["id"], intent, key=key, labels=labels)
            return Effect(_intent_response(intent), seq)

        return self._once(request, act)

    def confirm_intent(self, request: Request) -> Answer:
        def act(params: Parameters, _key: str | None) -> Effect:
            entry = self._intent(request.path_values["id"])
            intent = intents.confirm(entry.document, params)
            self.ledger.change("payment_intent", intent["id"], intent)
            return Effect(_intent_response(intent), entry.seq)

        return self._once(request, act)

    def cancel_intent(self, request: Request) -> Answer:
        def act(params: Parameters, _key: str | None) -> Effect:
            entry = self._intent(request.path_values["id"])
            intent = intents.cancel(entry.document, params)
            self.ledger.change("payment_intent", intent["id"], intent)
            return Effect(json_answer(200, intents.public(intent)), entry.seq)

        return self._once(request, act)

    def create_refund(self, request: Request) -> Answer:
        def act(params: Parameters, key: str | None) -> Effect:
            parameters.refuse_unknown(params, refunds.REFUND_PARAMETERS)
            intent = self._refundable(params)
            intent["amount_refunded"] = self._given_back(intent)
            refund = refunds.create(intent, params, state=request.state)
            self.ledger.change("payment_intent", intent["id"], intent)
            labels = [("payment_intent", intent["id"]), ("charge", refund["charge"])]
            seq = self.ledger.record("refund", refund["id"], refund, key=key, labels=labels)
            return Effect(json_answer(200, refund), seq)

        return self._once(request, act)

    def show_intent(self, request: Request) -> Answer:
        parameters.refuse_unknown(_query(request), ("expand", "client_secret"))
        return json_answer(200, intents.public(self._intent(request.path_values["id"]).document))

    def show_refund(self, request: Request) -> Answer:
        parameters.refuse_unknown(_query(request), ("expand",))
        name = request.path_values["id"]
        entry = self.ledger.get("refund", name)
        if entry is None:
            raise errors.not_found("refund", name, param="id")
        return json_answer(200, entry.document)

    def list_intents(self, request: Request) -> Answer:
        return self._list(request, "payment_intent", INTENTS, ("customer",))

    def list_refunds(self, request: Request) -> Answer:
        return self._list(request, "refund", REFUNDS, ("payment_intent", "charge"))

    def search_intents(self, request: Request) -> Answer:
        params = _query(request)
        parameters.refuse_unknown(params, ("expand", "limit", "page", "query"))
        limit = parameters.limit(params)
        query = parameters.text(params, "query")
        if query is None:
            raise errors.missing("query")
        conditions = [searches.parsed(query), ("recorded_at <= ?", (time.time() - self._search_lag,))]
        if page := parameters.text(params, "page"):
            conditions.append(ledgers.older_than(_place(page)))
        found = self.ledger.find("payment_intent", *conditions, limit=limit + 1)
        shown, more = found[:limit], len(found) > limit
        return json_answer(
            200,
            {
                "object": "search_result",
                "url": f"{INTENTS}/search",
                "has_more": more,
                "data": [intents.public(entry.document) for entry in shown],
                "next_page": _page_after(shown[-1]) if more else None,
            },
        )

    def _once(self, request: Request, act: Act) -> Answer:
        params = parameters.decode(request.form())
        key = self.key_of(request)
        if not key:
            request.pause()
            with self.ledger.transaction():
                return act(params, None).answer
        if len(key) > LONGEST_KEY:
            raise StripeError(
                400, f"Idempotency keys can have up to {LONGEST_KEY} characters.", kind="idempotency_error"
            )
        try:
            answer, replayed = self._keys.once(
                key,
                endpoint=request.path,
                fingerprint=hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest(),
                act=lambda: act(params, key),
                pause=request.pause,
            )
        except KeyInFlight:
            raise errors.of_status(
                409,
                "There is currently another in-progress request using this Idempotent Key (that probably means"
                " you submitted twice, and the other request is still going through):"
                f" {key}. Please try again later.",
            ) from None
        except KeyReused as reused:
            raise _reused(request.path, key, reused) from None
        answer.headers["Idempotency-Key"] = key
        if replayed:
            answer.headers["Idempotent-Replayed"] = "true"
        return answer

    def _list(self, request: Request, kind: str, url: str, labels: tuple[str, ...]) -> Answer:
        params = _query(request)
        parameters.refuse_unknown(params, LIST_PARAMETERS | set(labels))
        limit = parameters.limit(params)
        conditions = _created(params)
        for name in labels:
            if value := parameters.text(params, name):
                conditions.append(ledgers.labelled(name, value))
        backwards = parameters.text(params, "ending_before")
        for name, beyond in (("starting_after", ledgers.older_than), ("ending_before", ledgers.newer_than)):
            if cursor := parameters.text(params, name):
                entry = self.ledger.get(kind, cursor)
                if entry is None:
                    raise errors.not_found(kind, cursor, param=name, status=400)
                conditions.append(beyond(entry.seq))
        found = self.ledger.find(kind, *conditions, limit=limit + 1, oldest_first=backwards is not None)
        shown = found[:limit]
        if backwards is not None:
            shown.reverse()
        return json_answer(
            200,
            {
                "object": "list",
                "url": url,
                "has_more": len(found) > limit,
                "data": [intents.public(entry.document) for entry in shown],
            },
        )

    def _intent(self, name: str) -> Entry:
        entry = self.ledger.get("payment_intent", name)
        if entry is None:
            raise errors.not_found("payment_intent", name, param="intent")
        return entry

    def _given_back(self, intent: Intent) -> int:
        made = self.ledger.find("refund", ledgers.labelled("payment_intent", intent["id"]))
        return sum(entry.document["amount"] for entry in made if entry.document["status"] not in refunds.UNDONE)

    def _refundable(self, params: Parameters) -> Intent:
        name, charge = parameters.text(params, "payment_intent"), parameters.text(params, "charge")
        if name:
            entry = self.ledger.get("payment_intent", name)
            if entry is None:
                raise errors.not_found("payment_intent", name, param="payment_intent")
            return entry.document
        if charge:
            found = self.ledger.find("payment_intent", ledgers.field("latest_charge", "=", charge), limit=1)
            if not found:
                raise errors.not_found("charge", charge, param="charge")
            return found[0].document
        raise StripeError(
            400, "One of the following params should be provided for this request: payment_intent or charge."
        )


def _intent_response(intent: Intent) -> Answer:
    """Respond with an intent, or with the error for its declined card."""
    if intent["last_payment_error"]:
        return intents.declined(intent).answer()
    return json_answer(200, intents.public(intent))


def _refusal_of_key(request: Request) -> StripeError | None:
    scheme, _, credentials = (request.headers.get("Authorization") or "").partition(" ")
    key = credentials.strip()
    if scheme.lower() == "basic":
        try:
            key = base64.b64decode(key, validate=True).decode().partition(":")[0]
        except (binascii.Error, UnicodeDecodeError):
            key = ""
    if not key:
        return StripeError(
            401,
            "You did not provide an API key. You need to provide your API key in the Authorization header,"
            " using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY').",
            headers={"WWW-Authenticate": 'Bearer realm="Stripe"'},
        )
    if not key.startswith("sk_test_"):
        return StripeError(401, f"Invalid API Key provided: {key[:8]}{'*' * 8}")
    return None


def _reused(path: str, key: str, reused: KeyReused) -> StripeError:
    only = (
        "with the same parameters they were first used with"
        if reused.same_endpoint
        else f"for the same endpoint they were first used for ('{reused.endpoint}' vs '{path}')"
    )
    return StripeError(
        400,
        f"Keys for idempotent requests can only be used {only}. Try using a key other than '{key}' if you meant"
        " to execute a different request.",
        kind="idempotency_error",
    )


def _query(request: Request) -> dict[str, Any]:
    return parameters.decode(request.query.items())


def _created(params: Parameters) -> list[Condition]:
    asked = params.get("created")
    if asked is None:
        return []
    bounds = asked if isinstance(asked, dict) else {"": asked}
    conditions = []
    for name, value in bounds.items():
        if name not in {"", *COMPARISONS} or not str(value).isdigit():
            raise StripeError(400, "Invalid created: use created[gte]=TIMESTAMP and the like.", param="created")
        conditions.append(ledgers.field("created", COMPARISONS.get(name, "="), int(value)))
    return conditions


def _page_after(entry: Entry) -> str:
    return base64.urlsafe_b64encode(f"after {entry.seq}".encode()).decode()


def _place(page: str) -> int:
    try:
        return int(base64.urlsafe_b64decode(page).decode().removeprefix("after "))
    except ValueError:
        raise StripeError(400, "Invalid page: use next_page of the last answer.", param="page") from None
