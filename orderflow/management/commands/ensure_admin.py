"""`manage.py ensure_admin`"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError


class Command(BaseCommand):
    help = "Makes ORDERFLOW_ADMIN_USER an administrator with ORDERFLOW_ADMIN_PASSWORD. Safe to repeat."

    def handle(self, *args: Any, **options: Any) -> None:
        if not (settings.ADMIN_USER and settings.ADMIN_PASSWORD):
            raise CommandError("Set ORDERFLOW_ADMIN_USER and ORDERFLOW_ADMIN_PASSWORD.")
        user = get_user_model().objects.filter(username=settings.ADMIN_USER).first()
        created = user is None
        user = user or get_user_model()(username=settings.ADMIN_USER)
        if created or not user.check_password(settings.ADMIN_PASSWORD) or not user.is_superuser:
            try:
                validate_password(settings.ADMIN_PASSWORD, user)
            except ValidationError as weak:
                raise CommandError(f"ORDERFLOW_ADMIN_PASSWORD: {' '.join(weak.messages)}") from None
            user.is_staff = user.is_superuser = user.is_active = True
            user.set_password(settings.ADMIN_PASSWORD)
            user.save()
        self.stdout.write(f"{settings.ADMIN_USER} {'created' if created else 'is an administrator'}")
