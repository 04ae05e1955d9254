"""`manage.py replay_failures`"""

from __future__ import annotations

import dataclasses
import getpass
import json
import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from outbox.command_lines import command_line
from outbox.dead_letters import campaigns, previews, resolving
from outbox.management import selection
from outbox.models import DeadLetter, DeadLetterQuerySet, ReplayCampaign

NOTHING_MATCHED = 4
SOME_LEFT = 3
POLL_INTERVAL = 0.2
"""Seconds between two queries for the outcome of a replay."""


class Command(BaseCommand):
    help = "Delivers the messages of open dead letters again. No effect takes place twice."

    def add_arguments(self, parser: CommandParser) -> None:
        selection.add_options(parser)
        parser.add_argument("--rate", type=float, help="Messages per second; all at once by default.")
        parser.add_argument("--wait", type=float, metavar="SECONDS", help="Wait this long for the outcome.")
        parser.add_argument(
            "--outcome", type=int, metavar="REPLAY", help="Only show the outcome of this replay."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["rate"] is not None and options["rate"] <= 0:
            raise CommandError("--rate must be above 0.")
        if options["outcome"] is not None:
            self._show_outcome(options)
            return
        dead_letters = selection.select(options)
        preview = previews.preview(dead_letters)
        if not preview.replayable and not preview.unreadable:
            raise CommandError("No open dead letter matches.", returncode=NOTHING_MATCHED)
        if options["dry_run"]:
            self._show(options, "would be replayed", preview.replayable, preview)
            return
        if not options["reason"].strip():
            raise CommandError("Give a --reason; it is shown on the dead letter.")
        done, campaign = self._replay(dead_letters, options)
        outcomes = self._await(campaign, options["wait"] or 0) if campaign else None
        self._show(options, "sent", done, preview, campaign, outcomes)
        if outcomes and options["wait"] and outcomes.recovered + outcomes.ended < outcomes.sent:
            raise CommandError("Not all recovered.", returncode=SOME_LEFT)
        if preview.unreadable:
            raise CommandError(
                f"Left open, with no message to deliver: {', '.join(preview.why_not())}. Discard them.",
                returncode=SOME_LEFT,
            )

    def _show_outcome(self, options: dict[str, Any]) -> None:
        campaign = ReplayCampaign.objects.filter(pk=options["outcome"]).first()
        if campaign is None:
            raise CommandError(f"There is no replay {options['outcome']}.", returncode=NOTHING_MATCHED)
        outcomes = self._await(campaign, options["wait"] or 0)
        as_json = options["format"] == "json"
        self.stdout.write(json.dumps(dataclasses.asdict(outcomes)) if as_json else str(outcomes))

    def _replay(
        self, dead_letters: DeadLetterQuerySet, options: dict[str, Any]
    ) -> tuple[int, ReplayCampaign | None]:
        by = f"cli:{getpass.getuser()}"
        if options["rate"] is None:
            resolved = resolving.replay(dead_letters, by=by, reason=options["reason"])
            return resolved.done, resolved.campaign
        done, campaign = 0, None
        for pk in list(dead_letters.values_list("pk", flat=True)):
            one = DeadLetter.objects.filter(pk=pk)
            resolved = resolving.replay(one, by=by, reason=options["reason"], campaign=campaign)
            done, campaign = done + resolved.done, resolved.campaign
            time.sleep(1 / options["rate"])
        return done, campaign

    def _await(self, campaign: ReplayCampaign, seconds: float) -> campaigns.Outcomes:
        """Wait until a replay has ended, at most so many seconds; return its outcomes."""
        until = time.monotonic() + seconds
        while (outcomes := campaigns.outcomes(campaign.pk)).under_way and time.monotonic() < until:
            time.sleep(POLL_INTERVAL)
        return outcomes

    def _show(
        self,
        options: dict[str, Any],
        verb: str,
        done: int,
        preview: previews.Preview,
        campaign: ReplayCampaign | None = None,
        outcomes: campaigns.Outcomes | None = None,
    ) -> None:
        if options["format"] == "json":
            counts: dict[str, Any] = {
                "verb": verb,
                "count": done,
                "unreadable": preview.unreadable,
                "why_not": preview.why_not(),
                "by_consumer": preview.by_consumer,
            }
            if campaign and outcomes:
                counts |= {"replay": campaign.pk, "outcomes": dataclasses.asdict(outcomes)}
            self.stdout.write(json.dumps(counts))
            return
        because = f": {', '.join(preview.why_not())}" if preview.unreadable else ""
        self.stdout.write(f"{done} {verb}, {preview.unreadable} cannot be{because}")
        if outcomes and options["wait"]:
            self.stdout.write(str(outcomes))
        elif campaign:
            self.stdout.write(
                f"See the outcome: {command_line('replay_failures', '--outcome', campaign.pk, '--wait', 60)}"
            )
        for consumer, count in sorted(preview.by_consumer.items()):
            self.stdout.write(f"  {count:>6}  {consumer}")
