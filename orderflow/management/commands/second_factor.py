"""`manage.py second_factor`"""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction
from django_otp.plugins.otp_static.models import StaticDevice, StaticToken
from django_otp.plugins.otp_totp.models import TOTPDevice

CODES = 8
"""Single-use codes on paper, for a lost telephone."""


class Command(BaseCommand):
    help = (
        "Gives a user a second factor: a key for an authenticator app, and single-use codes. They are shown "
        "once; running the command again replaces both."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("user", help="The user's name.")
        parser.add_argument("--remove", action="store_true", help="Remove the second factor instead.")

    def handle(self, *args: Any, user: str, remove: bool, **options: Any) -> None:
        found = get_user_model().objects.filter(username=user).first()
        if found is None:
            raise CommandError(f"There is no user {user}.")
        with transaction.atomic():
            StaticDevice.objects.filter(user=found).delete()
            TOTPDevice.objects.filter(user=found).delete()
            if remove:
                self.stdout.write(f"{user} has no second factor.")
                return
            app = TOTPDevice.objects.create(user=found, name="app")
            paper = StaticDevice.objects.create(user=found, name="single-use codes")
            codes = [_code() for _ in range(CODES)]
            StaticToken.objects.bulk_create([StaticToken(device=paper, token=code) for code in codes])
        self.stdout.write(f"Enter this in the authenticator app:\n{app.config_url}")
        self.stdout.write("Single-use codes, for when the app is lost:\n" + "\n".join(codes))


def _code() -> str:
    """A code that cannot be mistaken for the app's, which has only digits."""
    while (code := StaticToken.random_token()).isdecimal():
        pass
    return str(code)
