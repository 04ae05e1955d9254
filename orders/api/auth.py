"""Authentication, scopes and rate limits of API requests."""

from __future__ import annotations

from django.http import HttpRequest
from ninja.security import HttpBearer

from orders.api import limits
from orders.api.addresses import client_address
from orders.api.problems import Problem
from orders.clients import tokens
from orders.models import ApiToken
from outbox import telemetry


class BearerToken(HttpBearer):
    """Requires a token with one of the operation's scopes; counts the request for the client's rate."""

    def __init__(self, *scopes: str) -> None:
        super().__init__()
        self.scopes = scopes

    def __call__(self, request: HttpRequest) -> ApiToken:
        token = token_of(request)
        if not set(self.scopes) & set(token.scopes):
            raise Problem(
                "missing-scope",
                f"the token {token.name} lacks the scope {self.scopes[0]}",
                headers={"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{self.scopes[0]}"'},
            )
        return token

    def authenticate(self, request: HttpRequest, token: str) -> ApiToken | None:
        return tokens.find(token, address=client_address(request))


def token_of(request: HttpRequest) -> ApiToken:
    """
    Return the token of the request, and count the request for its client.

    Raises:
        Problem: if there is no valid one, it may not be used from this address, or the client's rate is used
        up.
    """
    kind, _, secret = request.headers.get("Authorization", "").partition(" ")
    is_bearer, address = kind.lower() == "bearer" and secret.strip(), client_address(request)
    try:
        token = tokens.find(secret.strip(), address=address) if is_bearer else None
    except tokens.AddressRefused as refused:
        # A stolen token must not use up the rate of its client.
        count("address", address)
        telemetry.emit("api_token.address_refused", name=refused.token.name)
        raise Problem("address-not-allowed", str(refused)) from refused
    if token is None:
        count("address", address)
        challenge = 'Bearer realm="orderflow"' + (', error="invalid_token"' if secret else "")
        raise Problem("unauthenticated", headers={"WWW-Authenticate": challenge})
    count("client", str(token.client_id))
    return token


def count(*client: str) -> None:
    """
    Raises:
        Problem: if this client has used up its rate.
    """
    if wait := limits.wait_for_turn(*client):
        raise Problem("rate-limited", retry_after=wait)
