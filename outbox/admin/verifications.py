"""Admin of verifications and repairs."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from outbox.admin.parts import ReadOnlyAdmin, chip
from outbox.models import RepairRecord, Verification
from outbox.verification.examination import PASSING, Verdict

LOOKS = {
    "passed": ("good", "✓"),
    "failed": ("bad", "✕"),
    Verdict.OK: ("good", "✓"),
    Verdict.VIOLATED: ("bad", "✕"),
    Verdict.TIMED_OUT: ("warn", "…"),
    Verdict.UNANSWERED: ("warn", "?"),
    Verdict.NOT_COMPARABLE: ("quiet", "–"),
}


@admin.register(Verification)
class VerificationAdmin(ReadOnlyAdmin):
    """Every run, with the verdict on every invariant."""

    list_display = ("ran_at", "state", "not_as_promised", "took", "since", "providers", "by")
    list_filter = ("passed", "ran_at")
    ordering = ("-ran_at", "-id")
    fieldsets = (
        (None, {"fields": ("state", "ran_at", "took", "since", "providers", "by")}),
        ("Promises", {"fields": ("promises",)}),
    )

    @admin.display(description="verdict", ordering="passed")
    def state(self, run: Verification) -> SafeString:
        verdict = "passed" if run.passed else "failed"
        return chip(verdict, verdict, LOOKS)

    @admin.display(description="not as promised")
    def not_as_promised(self, run: Verification) -> str:
        return (
            ", ".join(finding["name"] for finding in run.findings if finding["verdict"] not in PASSING) or "–"
        )

    @admin.display(description="what was examined")
    def promises(self, run: Verification) -> SafeString:
        worst_first = sorted(run.findings, key=lambda finding: finding["verdict"] in PASSING)
        rows = format_html_join("\n", "<tr><td>{}</td><td>{}</td><td>{}</td></tr>", map(_cells, worst_first))
        return format_html(
            '<div class="of-scroll"><table class="of-cards"><thead><tr>'
            '<th scope="col">promise</th><th scope="col">verdict</th>'
            '<th scope="col">offending, and what to do</th></tr></thead><tbody>{}</tbody></table></div>',
            rows,
        )


@admin.register(RepairRecord)
class RepairRecordAdmin(ReadOnlyAdmin):
    """Repairs: what was repaired, by whom and why."""

    list_display = ("repaired_at", "invariant", "subject", "what", "repaired_by")
    list_filter = ("repaired_at",)
    search_fields = ("subject",)
    search_help_text = "The exact subject."
    ordering = ("-repaired_at", "-id")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("invariant", "subject", "what", "reason", "repaired_by", "repaired_at")


def _cells(finding: dict[str, Any]) -> tuple[SafeString, SafeString, SafeString]:
    promise = format_html("<strong>{}</strong><br>{}", finding["name"], finding["sentence"])
    return promise, chip(finding["verdict"], finding["verdict"], LOOKS), _what_to_do(finding)


def _what_to_do(finding: dict[str, Any]) -> SafeString:
    if not finding["count"]:
        return format_html("{}", finding["note"] or "–")
    more = finding["count"] - len(finding["ids"])
    offending = ", ".join(finding["ids"]) + (f" and {more} more" if more > 0 else "")
    return format_html("{}<br><code>{}</code>", offending, finding["command"])
