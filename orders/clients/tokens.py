"""
Bearer tokens of API clients: created, found, rotated, revoked, identified. Only the SHA-256 of a secret is
stored.

A secret is 256 random bits, so a plain hash is enough: it cannot be guessed.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import ipaddress
import re
import secrets
from collections.abc import Sequence

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Q, Value
from django.db.models.functions import Now

from orders.models import ApiClient, ApiToken, SupersededSecret
from outbox import telemetry
from outbox.database import clock

READ, READ_ALL, WRITE, CANCEL = "orders:read", "orders:read:all", "orders:write", "orders:cancel"
METRICS = "metrics:read"
SCOPES = (READ, WRITE, CANCEL, READ_ALL, METRICS)
ORDINARY = (READ, WRITE, CANCEL)
"""The scopes for a client's own orders; `orders:read:all` shows those of every client, and `metrics:read`
is for Prometheus."""

NEVER = dt.timedelta.max
"""As a lifetime: the token does not expire."""
NO_END = dt.datetime.max.replace(tzinfo=dt.UTC)

USE_NOTED_EVERY = dt.timedelta(minutes=1)
"""`last_used_at` is for people; updating it with every request would make each read a write."""

SECRET = re.compile(r"of_(?:live|test)_[A-Za-z0-9_-]{43}")


class UnknownScope(ValueError):
    """An unknown scope was requested."""


class BadNetwork(ValueError):
    """An invalid network in CIDR notation; a valid one is 192.0.2.0/24."""


class NameTaken(Exception):
    """There is already a token or a client with this name."""


class NoSuchToken(Exception):
    """There is no usable token with this name: it never existed or has been revoked."""


class AddressRefused(Exception):
    """A valid token was used from outside its allowed networks; `token` is the token."""

    def __init__(self, token: ApiToken) -> None:
        super().__init__(f"the token {token.name} may not be used from this address")
        self.token = token


def lifetime() -> dt.timedelta:
    """Return how long a secret is valid by default."""
    return dt.timedelta(days=settings.API_TOKEN_LIFETIME_DAYS)


def create(
    name: str,
    *,
    scopes: Sequence[str],
    client: str = "",
    expires_in: dt.timedelta | None = None,
    networks: Sequence[str] = (),
) -> tuple[ApiToken, str]:
    """
    Create a token; return it with its secret, which is not shown again.

    It belongs to the named client, which is created if it does not exist; by default to a new client with the
    token's own name. It is valid for `lifetime()`, or for `expires_in`.

    Raises:
        UnknownScope: if a scope is not in `SCOPES`.
        BadNetwork: if one of its allowed networks is invalid.
        NameTaken: if the name is in use, or no client was named and there is one with that name.
    """
    if unknown := sorted(set(scopes) - set(SCOPES)):
        raise UnknownScope(f"no such scope: {', '.join(unknown)}; there are {', '.join(SCOPES)}")
    allowed = _networks(networks)
    secret = _new_secret()
    try:
        with transaction.atomic():
            token = ApiToken.objects.create(
                client=_client(client, name),
                name=name,
                digest=_digest(secret),
                last_four=secret[-4:],
                scopes=sorted(set(scopes)),
                allowed_networks=allowed,
                expires_at=_end_of(expires_in),
            )
    except IntegrityError as taken:
        raise NameTaken(f"there is a token named {name} already") from taken
    telemetry.emit("api_token.created", name=name, client=token.client.name, scopes=token.scopes)
    return token, secret


def find(secret: str, *, address: str = "") -> ApiToken | None:
    """
    Return the token of a secret, or None if it is unknown, superseded, expired or revoked. Records its use.

    Raises:
        AddressRefused: if the token may not be used from this address.
    """
    digest = _digest(secret)
    usable = ApiToken.objects.filter(revoked_at__isnull=True).annotate(used_at=Now())
    token = usable.filter(Q(expires_at__isnull=True) | Q(expires_at__gt=Now()), digest=digest).first()
    superseded = None
    if token is None:
        superseded = SupersededSecret.objects.filter(digest=digest, valid_until__gt=Now()).first()
        token = usable.filter(pk=superseded.token_id).first() if superseded else None
    if token is None:
        return None
    if not _is_allowed(address, token.allowed_networks):
        raise AddressRefused(token)
    _note_use(superseded or token, at=token.used_at)
    return token


def rotate(
    name: str, *, overlap: dt.timedelta = dt.timedelta(0), expires_in: dt.timedelta | None = None
) -> tuple[ApiToken, str]:
    """
    Give the token a new secret; return both.

    The previous secret stays valid for the overlap, but not beyond its own expiry. Without an overlap it and
    those of earlier overlaps become invalid at once.

    Raises:
        NoSuchToken: if there is none, or it has been revoked.
    """
    secret = _new_secret()
    with transaction.atomic():
        token, now = _in_use(name), clock.now()
        if not overlap:
            token.superseded.filter(valid_until__gt=now).update(valid_until=now)
        SupersededSecret.objects.create(
            token=token,
            digest=token.digest,
            last_four=token.last_four,
            valid_until=min(now + overlap, token.expires_at or NO_END),
            last_used_at=token.last_used_at,
        )
        token.digest, token.last_four = _digest(secret), secret[-4:]
        token.expires_at, token.last_used_at = _end_of(expires_in), None
        token.save(update_fields=["digest", "last_four", "expires_at", "last_used_at"])
    telemetry.emit("api_token.rotated", name=name, overlap_seconds=overlap.total_seconds())
    return token, secret


def allow(name: str, *, networks: Sequence[str]) -> None:
    """
    Restrict the token to these networks; an empty list allows all.

    Raises:
        BadNetwork: if one is invalid.
        NoSuchToken: if there is no such token, or it has been revoked.
    """
    allowed = _networks(networks)
    with transaction.atomic():
        token = _in_use(name)
        token.allowed_networks = allowed
        token.save(update_fields=["allowed_networks"])
    telemetry.emit("api_token.restricted", name=name, networks=allowed)


def revoke(name: str) -> None:
    """
    Revoke a token permanently, with all its secrets.

    Raises:
        NoSuchToken: if there is none, or it has already been revoked.
    """
    with transaction.atomic():
        token = _in_use(name)
        ApiToken.objects.filter(pk=token.pk).update(revoked_at=Now())
    telemetry.emit("api_token.revoked", name=name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Identity:
    """The token of a secret, and whether the secret is still valid."""

    token: ApiToken
    state: str
    """valid, expired, revoked or superseded."""
    valid_until: dt.datetime | None
    """None: it is not valid, or its token does not expire."""
    last_used_at: dt.datetime | None


def identify(text: str) -> Identity | None:
    """Return the token of a leaked secret, alone or within `text`; None if it is not one of ours."""
    found = SECRET.search(text)
    digest = _digest(found.group() if found else text.strip())
    used: ApiToken | SupersededSecret | None
    used = ApiToken.objects.select_related("client").filter(digest=digest).first()
    used = used or SupersededSecret.objects.select_related("token__client").filter(digest=digest).first()
    if used is None:
        return None
    token, until = (used, used.expires_at) if isinstance(used, ApiToken) else (used.token, used.valid_until)
    state = state_of(used, now=clock.now())
    return Identity(
        token=token,
        state=state,
        valid_until=until if state == "valid" else None,
        last_used_at=used.last_used_at,
    )


def expiring(*, within: dt.timedelta) -> list[tuple[str, dt.datetime | None]]:
    """Return the names of used tokens that expire soon and were not rotated, with their expiry."""
    # Only the oldest columns: `migrate` runs this before it has created the others.
    ending = ApiToken.objects.filter(revoked_at__isnull=True, last_used_at__isnull=False)
    ending = ending.filter(expires_at__gt=Now(), expires_at__lt=Now() + Value(within)).order_by("expires_at")
    return list(ending.values_list("name", "expires_at"))


def state_of(secret: ApiToken | SupersededSecret, *, now: dt.datetime) -> str:
    """Return whether a token's current or earlier secret is valid, expired, revoked or superseded."""
    if isinstance(secret, SupersededSecret):
        if secret.token.revoked_at:
            return "revoked"
        return "valid" if secret.valid_until > now else "superseded"
    if secret.revoked_at:
        return "revoked"
    return "expired" if secret.expires_at and secret.expires_at <= now else "valid"


def _client(client: str, name: str) -> ApiClient:
    if client:
        return ApiClient.objects.get_or_create(name=client)[0]
    if ApiClient.objects.filter(name=name).exists():
        raise NameTaken(f"there is a client named {name} already; name it to give it another token")
    return ApiClient.objects.create(name=name)


def _in_use(name: str) -> ApiToken:
    """Return the token, locked."""
    token = ApiToken.objects.select_for_update().filter(name=name, revoked_at__isnull=True).first()
    if token is None:
        raise NoSuchToken(f"there is no token named {name} in use")
    return token


def _end_of(expires_in: dt.timedelta | None) -> dt.datetime | None:
    return None if expires_in is NEVER else clock.now() + (lifetime() if expires_in is None else expires_in)


def _networks(texts: Sequence[str]) -> list[str]:
    try:
        return sorted({str(ipaddress.ip_network(text.strip())) for text in texts})
    except ValueError as wrong:
        raise BadNetwork(f"{wrong}; a network is written like 192.0.2.0/24 or 2001:db8::/32") from wrong


def _is_allowed(address: str, networks: Sequence[str]) -> bool:
    if not networks:
        return True
    try:
        came_from = ipaddress.ip_address(address)
    except ValueError:  # a Unix socket has no address
        return False
    mapped = getattr(came_from, "ipv4_mapped", None)
    return any((mapped or came_from) in ipaddress.ip_network(network) for network in networks)


def _note_use(used: ApiToken | SupersededSecret, *, at: dt.datetime) -> None:
    noted = used.last_used_at
    if noted and at - noted < USE_NOTED_EVERY:
        return
    long_ago = Q(last_used_at__isnull=True) | Q(last_used_at__lt=Now() - Value(USE_NOTED_EVERY))
    type(used)._default_manager.filter(long_ago, pk=used.pk).update(last_used_at=Now())


def _new_secret() -> str:
    """The prefix makes secrets recognisable to people, and to scanners for leaked secrets."""
    kind = "live" if settings.ENVIRONMENT == "production" else "test"
    return f"of_{kind}_{secrets.token_urlsafe(32)}"


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
