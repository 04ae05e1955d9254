"""`manage.py send_test_notification`."""

from __future__ import annotations

import uuid
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from notifications import channels
from notifications.models import Channel, Notification
from outbox.resilience import Permanent, Transient


class Command(BaseCommand):
    help = "Sends a test text through a channel, bypassing the outbox, to check that its provider accepts it."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--channel", required=True, choices=Channel.values, help="The channel to try.")
        parser.add_argument("--to", required=True, help="E-mail address, phone number or device token.")

    def handle(self, *, channel: str, to: str, **_: Any) -> None:
        test = Notification(
            id=0,
            message_id=uuid.uuid4(),
            order_id=uuid.uuid4(),
            order_number="TEST",
            channel=channel,
            template="test",
            recipient=to,
            subject="Test from OrderFlow",
            text="This is a test from OrderFlow. Nothing was ordered.",
            created_at=timezone.now(),
        )
        try:
            provider_message_id = channels.get(channel).send(test)
        except (Permanent, Transient, OSError, ValueError) as failure:
            raise CommandError(f"{channel} did not accept it: {failure}") from failure
        self.stdout.write(f"{channel} accepted it as {provider_message_id}")
