"""`manage.py api_token`."""

from __future__ import annotations

import datetime as dt
import getpass
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from orders.clients import tokens
from orders.models import ApiToken
from outbox.database import clock

LONGEST_LIFE = 36_500
LONGEST_OVERLAP = 24 * 90
LONGEST_TEXT = 100_000


class Command(BaseCommand):
    help = "Creates, lists, rotates, restricts, revokes and identifies the bearer tokens of API clients."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
        create = verbs.add_parser("create", help="Create a token and print it once.")
        create.add_argument("name", help="The token's name.")
        create.add_argument(
            "--client",
            default="",
            help="The client it belongs to, created if it does not exist (default: a new one with that name).",
        )
        create.add_argument(
            "--scopes", nargs="+", required=True, help=f"What it may do: {', '.join(tokens.SCOPES)}."
        )
        create.add_argument(
            "--from", dest="networks", nargs="+", default=[], metavar="CIDR", help="Accept it only from there."
        )
        listing = verbs.add_parser("list", help="List the tokens. Their secrets are not stored.")
        listing.add_argument(
            "--without-expiry",
            action="store_true",
            help="Only tokens in use that never expire.",
        )
        rotate = verbs.add_parser("rotate", help="Give a token a new secret and print it once.")
        rotate.add_argument("name")
        rotate.add_argument(
            "--overlap",
            type=int,
            default=0,
            metavar="HOURS",
            help="How long the old secret stays valid (default: it becomes invalid at once).",
        )
        for verb in (create, rotate):
            life = verb.add_mutually_exclusive_group()
            life.add_argument("--expires", type=int, metavar="DAYS", help="Else API_TOKEN_LIFETIME_DAYS.")
            life.add_argument("--never-expires", action="store_true", help="Valid until it is revoked.")
        allow = verbs.add_parser("allow", help="Set the networks from which a token may be used.")
        allow.add_argument("name")
        where = allow.add_mutually_exclusive_group(required=True)
        where.add_argument("--from", dest="networks", nargs="+", metavar="CIDR")
        where.add_argument("--from-anywhere", dest="networks", action="store_const", const=[])
        revoke = verbs.add_parser("revoke", help="Revoke a token permanently.")
        revoke.add_argument("name")
        verbs.add_parser("identify", help="Find the token of a leaked secret, which is typed in or piped in.")

    def handle(self, *args: Any, verb: str, **options: Any) -> None:
        refusals = (tokens.UnknownScope, tokens.BadNetwork, tokens.NameTaken, tokens.NoSuchToken)
        try:
            getattr(self, f"_{verb}")(**options)
        except refusals as refused:
            raise CommandError(str(refused)) from refused

    def _create(self, *, name: str, client: str, scopes: list[str], networks: list[str], **life: Any) -> None:
        for given in (name, client or name):
            if not given.strip() or len(given) > 100 or not given.isprintable():
                raise CommandError("a name has 1 to 100 characters, all of them visible")
        named = [scope for part in scopes for scope in part.split(",") if scope]
        token, secret = tokens.create(
            name, scopes=named, client=client, expires_in=_lifetime(**life), networks=networks
        )
        self._show(token, secret)

    def _rotate(self, *, name: str, overlap: int, **life: Any) -> None:
        if not 0 <= overlap <= LONGEST_OVERLAP:
            raise CommandError(f"--overlap takes 0 to {LONGEST_OVERLAP} hours")
        token, secret = tokens.rotate(name, overlap=dt.timedelta(hours=overlap), expires_in=_lifetime(**life))
        self._show(token, secret)
        for old in token.superseded.filter(valid_until__gt=clock.now()).order_by("valid_until"):
            self.stderr.write(f"The secret …{old.last_four} stays valid until {_minute(old.valid_until)}.")

    def _allow(self, *, name: str, networks: list[str], **_: Any) -> None:
        tokens.allow(name, networks=networks)
        self.stdout.write(f"{name} may be used from {', '.join(networks) or 'anywhere'}.")

    def _revoke(self, *, name: str, **_: Any) -> None:
        tokens.revoke(name)
        self.stdout.write(f"{name} is revoked.")

    def _identify(self, **_: Any) -> None:
        typed = getpass.getpass("Secret: ") if sys.stdin.isatty() else sys.stdin.read(LONGEST_TEXT)
        identity = tokens.identify(typed)
        if identity is None:
            raise CommandError("this is not the secret of a token that was created here")
        token = identity.token
        until = f" until {_minute(identity.valid_until)}" if identity.valid_until else ""
        self.stdout.write(
            f"token {token.name} of client {token.client.name}: {identity.state}{until}, "
            f"scopes {' '.join(token.scopes)}, last used {_minute(identity.last_used_at) or 'never'}"
        )
        if identity.state == "valid":
            self.stderr.write(
                f"It is valid now: `api_token rotate {token.name}` replaces it at once, "
                f"`api_token revoke {token.name}` revokes the token."
            )

    def _list(self, *, without_expiry: bool, **_: Any) -> None:
        now = clock.now()
        listed = ApiToken.objects.select_related("client").prefetch_related("superseded")
        if without_expiry:
            listed = listed.filter(expires_at__isnull=True, revoked_at__isnull=True)
        for token in listed.order_by("client__name", "name"):
            columns = [
                token.name,
                f"client {token.client.name}",
                f"…{token.last_four}" if token.last_four else "…",
                tokens.state_of(token, now=now),
                " ".join(token.scopes),
                f"expires {token.expires_at:%Y-%m-%d}" if token.expires_at else "expires never",
                f"last used {_minute(token.last_used_at) or 'never'}",
                f"from {' '.join(token.allowed_networks) or 'anywhere'}",
            ]
            columns += [
                f"…{old.last_four} until {_minute(old.valid_until)}, "
                f"last used {_minute(old.last_used_at) or 'never'}"
                for old in token.superseded.all()
                if old.valid_until > now and not token.revoked_at
            ]
            self.stdout.write("\t".join(columns))

    def _show(self, token: ApiToken, secret: str) -> None:
        self.stdout.write(secret)
        until = f"until {_minute(token.expires_at)}" if token.expires_at else "until it is revoked"
        self.stderr.write(
            f"Store it now: only its hash is kept, it cannot be shown again. Client {token.client.name}; "
            f"valid {until}."
        )


def _lifetime(*, expires: int | None, never_expires: bool, **_: Any) -> dt.timedelta | None:
    if never_expires:
        return tokens.NEVER
    if expires is not None and not 1 <= expires <= LONGEST_LIFE:
        raise CommandError(f"--expires takes 1 to {LONGEST_LIFE} days")
    return None if expires is None else dt.timedelta(days=expires)


def _minute(at: dt.datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC" if at else ""
