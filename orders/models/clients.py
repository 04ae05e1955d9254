"""Clients of the API and their tokens."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.models import Value
from django.db.models.functions import Now


class ApiClient(models.Model):
    """A user of the API. Orders, idempotency keys and the rate are the client's, whichever token it uses."""

    name = models.CharField(max_length=100, unique=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        verbose_name = "API client"

    def __str__(self) -> str:
        return self.name


class ApiToken(models.Model):
    """A client's bearer token; of its secret only the hash and the last characters are stored."""

    client = models.ForeignKey(ApiClient, on_delete=models.PROTECT, related_name="tokens")
    name = models.CharField(max_length=100, unique=True)
    digest = models.CharField(max_length=64, unique=True, help_text="SHA-256 of the secret.")
    last_four = models.CharField(
        max_length=4,
        blank=True,
        default="",
        db_default="",
        help_text="How the secret ends; empty when it is older than this column.",
    )
    scopes: Any = models.JSONField(
        default=list, help_text="orders:read, orders:read:all, orders:write, orders:cancel."
    )
    allowed_networks: Any = models.JSONField(
        default=list,
        db_default=Value([], models.JSONField()),
        blank=True,
        help_text="Where requests may come from, as CIDR; empty: from anywhere.",
    )
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField(null=True, help_text="NULL: it does not expire.")
    revoked_at = models.DateTimeField(null=True, help_text="NULL: it has not been revoked.")
    last_used_at = models.DateTimeField(null=True, help_text="NULL: never used. Written once a minute at most.")

    class Meta:
        verbose_name = "API token"

    def __str__(self) -> str:
        return self.name


class SupersededSecret(models.Model):
    """
    A secret that a token had before it was rotated.

    It is valid until `valid_until`, and is kept afterwards, so that a leaked secret can be identified.
    """

    token = models.ForeignKey(ApiToken, on_delete=models.CASCADE, related_name="superseded")
    digest = models.CharField(max_length=64, unique=True, help_text="SHA-256 of the secret.")
    last_four = models.CharField(max_length=4, blank=True)
    superseded_at = models.DateTimeField(db_default=Now())
    valid_until = models.DateTimeField(help_text="When its overlap ends; in the past when there was none.")
    last_used_at = models.DateTimeField(null=True, help_text="NULL: not since it was superseded.")

    class Meta:
        verbose_name = "superseded secret"

    def __str__(self) -> str:
        return f"…{self.last_four} of {self.token_id}"
