"""`manage.py ensure_admin`"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError


class Command(BaseCommand):
    help = "Makes ORDERFLOW_ADMIN_USER an administrator with ORDERFLOW_ADMIN_PASSWORD. Safe to repeat."

    def handle(self, *args: Any, **options: Any) -> None:
        if not (settings.ADMIN_USER and settings.ADMIN_PASSWORD):
            raise CommandError("Set ORDERFLOW_ADMIN_USER and ORDERFLOW_ADMIN_PASSWORD.")
        user, created = get_user_model().objects.get_or_create(username=settings.ADMIN_USER)
        if created or not user.check_password(settings.ADMIN_PASSWORD) or not user.is_superuser:
            user.is_staff = user.is_superuser = user.is_active = True
            user.set_password(settings.ADMIN_PASSWORD)
            user.save()
        self.stdout.write(f"{settings.ADMIN_USER} {'created' if created else 'is an administrator'}")
