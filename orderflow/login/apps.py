"""The admin, on our site. Its pages are loaded with the URLs, so that workers are without them."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin import checks as of_admin
from django.contrib.admin.apps import SimpleAdminConfig
from django.core import checks


class LoginAdminConfig(SimpleAdminConfig):
    default_site = "orderflow.login.site.Site"

    def ready(self) -> None:
        checks.register(of_admin.check_dependencies, checks.Tags.admin)
        checks.register(check_pages, checks.Tags.admin)


def check_pages(app_configs: Any, **options: Any) -> list[checks.CheckMessage]:
    """Django's check of the admin's classes, of all that there are."""
    admin.autodiscover()
    found: list[checks.CheckMessage] = of_admin.check_admin_app(app_configs, **options)
    return found
