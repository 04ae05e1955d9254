"""`manage.py api_token`."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from orders import tokens
from orders.models import ApiToken


class Command(BaseCommand):
    help = "Makes, lists, rotates and revokes the bearer tokens of API clients."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
        create = verbs.add_parser("create", help="Make a token and print it, this once.")
        create.add_argument("name", help="The client the token is for.")
        create.add_argument(
            "--scopes", nargs="+", required=True, help=f"What it may do: {', '.join(tokens.SCOPES)}."
        )
        create.add_argument("--expires", type=int, metavar="DAYS", help="Days it is valid; else until revoked.")
        verbs.add_parser("list", help="List the tokens. The secrets are not stored.")
        rotate = verbs.add_parser("rotate", help="Give a token a new secret; the old one stops at once.")
        rotate.add_argument("name")
        revoke = verbs.add_parser("revoke", help="End a token for good.")
        revoke.add_argument("name")

    def handle(self, *args: Any, verb: str, **options: Any) -> None:
        try:
            getattr(self, f"_{verb}")(**options)
        except (tokens.UnknownScope, tokens.NameTaken, tokens.NoSuchToken) as refused:
            raise CommandError(str(refused)) from refused

    def _create(self, *, name: str, scopes: list[str], expires: int | None, **_: Any) -> None:
        if expires is not None and not 1 <= expires <= 36_500:
            raise CommandError("--expires takes 1 to 36500 days")
        if not name.strip() or len(name) > 100:
            raise CommandError("a name has 1 to 100 characters")
        named = [scope for part in scopes for scope in part.split(",") if scope]
        expires_in = None if expires is None else dt.timedelta(days=expires)
        _token, secret = tokens.create(name, scopes=named, expires_in=expires_in)
        self._show(secret)

    def _rotate(self, *, name: str, **_: Any) -> None:
        self._show(tokens.rotate(name))

    def _revoke(self, *, name: str, **_: Any) -> None:
        tokens.revoke(name)
        self.stdout.write(f"{name} is revoked.")

    def _list(self, **_: Any) -> None:
        now = dt.datetime.now(dt.UTC)
        for token in ApiToken.objects.order_by("name"):
            state = "valid"
            if token.revoked_at:
                state = "revoked"
            elif token.expires_at and token.expires_at <= now:
                state = "expired"
            used = f"{token.last_used_at:%Y-%m-%d %H:%M}" if token.last_used_at else "never"
            expires = f"{token.expires_at:%Y-%m-%d}" if token.expires_at else "never"
            scopes = " ".join(token.scopes)
            self.stdout.write(f"{token.name}\t{state}\t{scopes}\texpires {expires}\tlast used {used}")

    def _show(self, secret: str) -> None:
        self.stdout.write(secret)
        self.stderr.write("Keep it now: only its hash is stored, it cannot be shown again.")
