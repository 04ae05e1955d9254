"""
Signals for logins, failed logins and logouts.

Typed names are never included: they may be passwords in the wrong field. Existing accounts appear with their
id.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model, signals
from django.contrib.sessions.models import Session
from django.http import HttpRequest
from django_otp.forms import otp_verification_failed

from orders.api.addresses import client_address
from outbox import registry, telemetry


def connect() -> None:
    """Connect to Django's signals. Called once by `apps.ready()`."""
    signals.user_logged_in.connect(_logged_in, dispatch_uid="orderflow.login")
    signals.user_login_failed.connect(_failed, dispatch_uid="orderflow.login")
    signals.user_logged_out.connect(_logged_out, dispatch_uid="orderflow.login")
    registry.expire("sessions", lambda now: Session.objects.filter(expire_date__lt=now))
    otp_verification_failed.connect(_second_factor_failed, dispatch_uid="orderflow.login")


def _logged_in(request: HttpRequest, user: Any, **_: Any) -> None:
    from orderflow.login import middleware  # workers have no logins, and are without what checks one

    middleware.begin(request)
    telemetry.emit("user.logged_in", user_id=user.pk, **_address(request))


def _failed(credentials: dict[str, Any], request: HttpRequest | None = None, **_: Any) -> None:
    from orderflow.login import limits
    from orderflow.login.backend import can_be_a_name

    name = str(credentials.get(get_user_model().USERNAME_FIELD, ""))
    known = None
    if can_be_a_name(name):
        known = get_user_model().objects.filter(username=name).values_list("pk", flat=True).first()
    alias = limits.alias_of(name)[:12]
    telemetry.emit("user.login_failed", user_id=known, alias=alias, **_address(request))


def _second_factor_failed(user: Any, **_: Any) -> None:
    telemetry.emit("user.second_factor_failed", user_id=user.pk)


def _logged_out(request: HttpRequest, user: Any, **_: Any) -> None:
    if user is not None:
        telemetry.emit("user.logged_out", user_id=user.pk, **_address(request))


def _address(request: HttpRequest | None) -> dict[str, str]:
    return {"client": client_address(request)} if request is not None else {}
