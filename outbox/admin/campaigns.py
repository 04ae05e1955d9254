"""Admin of replays: who replayed what, and the outcomes."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse

from outbox.admin.lists import KeysetChangeList
from outbox.admin.parts import ReadOnlyAdmin, chip, moment
from outbox.dead_letters import campaigns
from outbox.models import Replay, ReplayCampaign

MOST_SHOWN = 100
"""Dead letters on one page of a campaign."""


class _CampaignList(KeysetChangeList):
    """Counts the outcomes of a page in one query."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        found = campaigns.outcomes_of([campaign.pk for campaign in self.result_list])
        for campaign in self.result_list:
            campaign.outcomes = found[campaign.pk]


@admin.register(ReplayCampaign)
class ReplayCampaignAdmin(ReadOnlyAdmin):
    """Each decision to replay dead letters, with its outcomes."""

    list_display = ("id", "started", "by", "reason", "outcome")
    search_fields = ("by",)
    search_help_text = "The exact name of the person who replayed."
    ordering = ("-started_at", "id")
    fields = ("started", "by", "reason", "outcome")

    @admin.display(description="started at (UTC)", ordering="started_at")
    def started(self, campaign: ReplayCampaign) -> str:
        return moment(campaign.started_at)

    @admin.display(description="outcome")
    def outcome(self, campaign: Any) -> str:
        return str(getattr(campaign, "outcomes", None) or campaigns.outcomes(campaign.pk))

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return _CampaignList

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        found = Replay.objects.filter(campaign=context["original"]).select_related("dead_letter").order_by("pk")
        page = Paginator(found, MOST_SHOWN).get_page(request.GET.get("p"))
        rows = [(replay, chip(replay.outcome, replay.get_outcome_display())) for replay in page]
        return super().render_change_form(request, context | {"page": page, "rows": rows}, *args, **kwargs)
