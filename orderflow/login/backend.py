"""Django's authentication by password, rate-limited before it hashes."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.base_user import AbstractBaseUser
from django.http import HttpRequest

from orderflow.login import limits


class LimitedBackend(ModelBackend):
    """The backend of every login by password, on every page and in every command."""

    def authenticate(  # type: ignore[override]
        self,
        request: HttpRequest | None,
        username: str | None = None,
        password: str | None = None,
        **kwargs: Any,
    ) -> AbstractBaseUser | None:
        """
        Raises:
            TooManyLogins: if this address or user has used up its attempts; nothing is hashed then.
        """
        if username is None or password is None:
            return None
        limits.count(request, username)
        if not can_be_a_name(username):
            return None
        with limits.place():
            return super().authenticate(request, username, password, **kwargs)


def can_be_a_name(typed: str) -> bool:
    """Whether the database accepts it as a parameter: no NUL, no lone surrogate."""
    try:
        return b"\x00" not in typed.encode()
    except UnicodeEncodeError:
        return False
