"""Errors in Stripe's shape: `{"error": {"type": …, "code": …, "message": …, …}}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orderflow.sandbox.messages import Answer, Refusal, json_answer

DOCUMENTATION = "https://docs.stripe.com/error-codes"


class StripeError(Refusal):
    """
    An error in Stripe's format.

    Args:
        status: the HTTP status.
        kind: the `type` of the error.
        details: further fields of the error, such as `decline_code` or `payment_intent`.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers
        self.error: dict[str, Any] = {"message": message, "type": kind}
        if code is not None:
            self.error |= {"code": code, "doc_url": f"{DOCUMENTATION}/{code.replace('_', '-')}"}
        if param is not None:
            self.error["param"] = param
        self.error |= details or {}

    def answer(self) -> Answer:
        return json_answer(self.status, {"error": self.error}, self.headers)


def missing(param: str) -> StripeError:
    return StripeError(400, f"Missing required param: {param}.", code="parameter_missing", param=param)


def invalid(param: str, message: str, code: str = "parameter_invalid_integer") -> StripeError:
    return StripeError(400, message, code=code, param=param)


def not_found(what: str, name: str, *, param: str, status: int = 404) -> StripeError:
    # A card number that was sent as an identifier is not repeated.
    shown = name if name.startswith(("pi_", "pm_", "re_", "ch_")) else "…"
    return StripeError(status, f"No such {what}: '{shown}'", code="resource_missing", param=param)


def of_status(status: int, message: str) -> StripeError:
    """Return the error that Stripe's servers send with this status when they fail."""
    if status == 402:
        return StripeError(
            status,
            message,
            kind="card_error",
            code="card_declined",
            details={"decline_code": "generic_decline"},
        )
    if status == 429:
        return StripeError(status, message, code="rate_limit")
    if status == 409:
        return StripeError(status, message, kind="idempotency_error", code="idempotency_key_in_use")
    return StripeError(status, message, kind="api_error" if status >= 500 else "invalid_request_error")
