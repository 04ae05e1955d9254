"""
The admin site, which requires a second factor if `ADMIN_SECOND_FACTOR` is on, and begins with the overview.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin
from django.contrib.admin.forms import AdminAuthenticationForm
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, URLResolver, path
from django_otp import devices_for_user
from django_otp.forms import otp_verification_failed
from django_otp.plugins.otp_static.models import StaticDevice


class SecondFactorForm(AdminAuthenticationForm):
    """Name, password and code together; the error does not say which of them was wrong."""

    otp_token = forms.CharField(
        label="Code",
        max_length=32,
        help_text="Six digits from your app, or one of your single-use codes.",
        widget=forms.TextInput(attrs={"autocomplete": "one-time-code", "spellcheck": "false"}),
    )

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean()
        user: Any = self.get_user()
        if user is not None:
            token = cleaned.get("otp_token", "").replace(" ", "")
            user.otp_device = self._device(user, token) if token else None
            if user.otp_device is None:
                otp_verification_failed.send(sender=type(self), user=user)
                raise self.get_invalid_login_error()
        return cleaned

    @staticmethod
    def _device(user: Any, token: str) -> Any:
        """The device of the code. Only possible devices are checked: each of them counts its failures."""
        is_single_use = not token.isdecimal()
        with transaction.atomic():  # of two requests with the same code, the second waits and fails
            for device in devices_for_user(user, for_verify=True):
                if isinstance(device, StaticDevice) != is_single_use:
                    continue
                if device.verify_is_allowed()[0] and device.verify_token(token):
                    return device
        return None

    def get_invalid_login_error(self) -> ValidationError:
        return ValidationError("Enter the correct username, password and code of a staff account.", "login")


class Site(admin.AdminSite):
    """Django's admin site with a second factor, and the overview above the list of its pages."""

    index_title = "Overview"

    def has_permission(self, request: HttpRequest) -> bool:
        """Whether the request may see pages: active staff, with a second factor if it is required."""
        if not super().has_permission(request):
            return False
        return not settings.ADMIN_SECOND_FACTOR or bool(request.user.is_verified())  # type: ignore[union-attr]

    @property
    def login_form(self) -> type[AdminAuthenticationForm] | None:  # type: ignore[override]
        return SecondFactorForm if settings.ADMIN_SECOND_FACTOR else None

    @property
    def login_template(self) -> str | None:  # type: ignore[override]
        return "admin/login_with_code.html" if settings.ADMIN_SECOND_FACTOR else None

    def get_urls(self) -> list[URLResolver | URLPattern]:
        return [path("overview/", self.admin_view(self.overview), name="overview"), *super().get_urls()]

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        from orderflow.ops.overview import page  # loaded with the first page, not with the site

        return super().index(request, page.context(request) | (extra_context or {}))

    def overview(self, request: HttpRequest) -> HttpResponse:
        """Return the part of the first page that its script refreshes."""
        from orderflow.ops.overview import page

        return TemplateResponse(request, "admin/overview/overview.html", page.context(request))
