"""
Bearer tokens of API clients: made, found, rotated, revoked. Only their SHA-256 is kept.

A token is 256 random bits, so a plain hash is enough: there is nothing to guess.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import secrets
from collections.abc import Sequence

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Q, Value
from django.db.models.functions import Now

from orders.models import ApiToken
from outbox import telemetry

READ, WRITE = "orders:read", "orders:write"
SCOPES = (READ, WRITE)

USE_NOTED_EVERY = dt.timedelta(minutes=1)
"""`last_used_at` is for people; writing it with every request would make each read a write."""


class UnknownScope(ValueError):
    """A token was asked for with a scope that does not exist."""


class NameTaken(Exception):
    """There is a token of this name already; rotate it, or take another name."""


class NoSuchToken(Exception):
    """There is no usable token of this name: it never existed or has been revoked."""


def create(name: str, *, scopes: Sequence[str], expires_in: dt.timedelta | None = None) -> tuple[ApiToken, str]:
    """
    Make a token for the client `name`; return it with its secret, which nobody can read again.

    Raises:
        UnknownScope: if a scope is none of `SCOPES`.
        NameTaken: if the name is in use.
    """
    if unknown := sorted(set(scopes) - set(SCOPES)):
        raise UnknownScope(f"no such scope: {', '.join(unknown)}; there are {', '.join(SCOPES)}")
    secret = _new_secret()
    expires_at = dt.datetime.now(dt.UTC) + expires_in if expires_in is not None else None
    try:
        with transaction.atomic():
            token = ApiToken.objects.create(
                name=name, digest=_digest(secret), scopes=sorted(set(scopes)), expires_at=expires_at
            )
    except IntegrityError as taken:
        raise NameTaken(f"there is a token named {name} already") from taken
    telemetry.emit("api_token.created", token=name, scopes=token.scopes)
    return token, secret


def find(secret: str) -> ApiToken | None:
    """The token that `secret` opens, or None when it is unknown, expired or revoked. Notes its use."""
    token = (
        ApiToken.objects.filter(Q(expires_at__isnull=True) | Q(expires_at__gt=Now()))
        .filter(digest=_digest(secret), revoked_at__isnull=True)
        .first()
    )
    if token is not None:
        _note_use(token)
    return token


def rotate(name: str) -> str:
    """
    Give the token of this name a new secret and return it; the old one stops working at once.

    Raises:
        NoSuchToken: if there is none, or it has been revoked.
    """
    secret = _new_secret()
    if not ApiToken.objects.filter(name=name, revoked_at__isnull=True).update(digest=_digest(secret)):
        raise NoSuchToken(f"there is no token named {name} in use")
    telemetry.emit("api_token.rotated", token=name)
    return secret


def revoke(name: str) -> None:
    """
    End a token for good.

    Raises:
        NoSuchToken: if there is none, or it has been revoked before.
    """
    if not ApiToken.objects.filter(name=name, revoked_at__isnull=True).update(revoked_at=Now()):
        raise NoSuchToken(f"there is no token named {name} in use")
    telemetry.emit("api_token.revoked", token=name)


def _note_use(token: ApiToken) -> None:
    noted = token.last_used_at
    if noted and dt.datetime.now(dt.UTC) - noted < USE_NOTED_EVERY:
        return
    long_ago = Q(last_used_at__isnull=True) | Q(last_used_at__lt=Now() - Value(USE_NOTED_EVERY))
    ApiToken.objects.filter(long_ago, pk=token.pk).update(last_used_at=Now())


def _new_secret() -> str:
    """The prefix tells people, and scanners of leaked secrets, what they are looking at."""
    kind = "live" if settings.ENVIRONMENT == "production" else "test"
    return f"of_{kind}_{secrets.token_urlsafe(32)}"


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
