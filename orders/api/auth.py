"""Who is asking, whether they may, and how often."""

from __future__ import annotations

from django.http import HttpRequest
from ninja.security import HttpBearer

from orders import tokens
from orders.api import limits
from orders.api.addresses import client_address
from orders.api.problems import Problem
from orders.models import ApiToken


class BearerToken(HttpBearer):
    """A client's token with the scope that the operation needs; its rate is counted."""

    def __init__(self, scope: str) -> None:
        super().__init__()
        self.scope = scope

    def __call__(self, request: HttpRequest) -> ApiToken:
        token = token_of(request)
        if self.scope not in token.scopes:
            raise Problem(
                "missing-scope",
                f"the token {token.name} lacks the scope {self.scope}",
                headers={"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{self.scope}"'},
            )
        return token

    def authenticate(self, request: HttpRequest, token: str) -> ApiToken | None:
        return tokens.find(token)


def token_of(request: HttpRequest) -> ApiToken:
    """
    The token of the request; counts it.

    Raises:
        Problem: if there is no valid one, or its rate is used up.
    """
    kind, _, secret = request.headers.get("Authorization", "").partition(" ")
    token = tokens.find(secret.strip()) if kind.lower() == "bearer" and secret.strip() else None
    if token is None:
        count("address", client_address(request))
        challenge = 'Bearer realm="orderflow"' + (', error="invalid_token"' if secret else "")
        raise Problem("unauthenticated", headers={"WWW-Authenticate": challenge})
    count("token", str(token.pk))
    return token


def count(*client: str) -> None:
    """
    Raises:
        Problem: if this client has used up its rate.
    """
    if wait := limits.wait_for_turn(*client):
        raise Problem("rate-limited", retry_after=wait)
