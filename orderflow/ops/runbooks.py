"""Links to the runbooks, by what is wrong: pages below `RUNBOOKS_URL`, or files of the repository."""

from __future__ import annotations

from collections.abc import Mapping

from django.conf import settings
from django.utils.html import format_html
from django.utils.safestring import SafeString

from outbox.admin import parts
from outbox.models import DeadLetter

FOLDER = "docs/runbooks"

OF_ERRORS: Mapping[str, str] = {
    "CrashLoop": "poison-message",
    "WorkerLost": "poison-message",
    "Undeliverable": "poison-message",
    "TooLarge": "poison-message",
    "InvalidTaskError": "poison-message",
    "NotRegistered": "wrong-deployment",
    "UnknownEvent": "wrong-deployment",
    "UnknownWorkflow": "wrong-deployment",
    "UnreadableEvent": "wrong-deployment",
    "ImportError": "wrong-deployment",
    "UndefinedColumn": "wrong-deployment",
    "UndefinedTable": "wrong-deployment",
    "ProgrammingError": "wrong-deployment",
    "HeldAfterRestore": "restore-from-backup",
    "StockForgotten": "restore-from-backup",
}
"""Runbooks by the class of an error. The error says more about the cause than the consumer does."""

OF_CONSUMERS: Mapping[str, str] = {
    "notifications.": "NotificationChannelFailing",
    "outbox.worker": "poison-message",
}
"""Runbooks by the beginning of a consumer's name."""

OF_OTHERS = "DeadLettersGrowing"


def connect() -> None:
    """Let the pages of dead letters link to runbooks. Called by `orderflow.admin`."""
    parts.link_runbooks_with(of_dead_letter)


def name_for(dead_letter: DeadLetter) -> str:
    """Return the name of the runbook for a dead letter's cause."""
    if known := OF_ERRORS.get(dead_letter.error_class):
        return known
    return next(
        (name for start, name in OF_CONSUMERS.items() if dead_letter.consumer.startswith(start)), OF_OTHERS
    )


def of_dead_letter(dead_letter: DeadLetter) -> SafeString | str:
    """Return a link to the runbook for a dead letter, or the file's path if `RUNBOOKS_URL` is not set."""
    name = name_for(dead_letter)
    if not settings.RUNBOOKS_URL:
        return f"{FOLDER}/{name}.md"
    return format_html('<a href="{}/{}.md">{}</a>', settings.RUNBOOKS_URL.rstrip("/"), name, name)
