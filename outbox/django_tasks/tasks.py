"""The Celery task that runs all tasks of Django's framework. It gets an id, and reads the rest from the row."""

from __future__ import annotations

import functools
from typing import Any, ClassVar

from billiard.exceptions import SoftTimeLimitExceeded
from celery import shared_task
from celery.exceptions import Reject
from django.db import Error as DatabaseError
from django.db import transaction
from django.db.models.expressions import CombinedExpression

from outbox import resilience
from outbox.consumer import ConsumerTask
from outbox.django_tasks import records
from outbox.models import Attempt
from outbox.resilience import NotNow, Permanent

NOT_AT_ONCE = (NotNow, Permanent, DatabaseError, SoftTimeLimitExceeded, MemoryError, Reject)
"""What is not tried again at once. What becomes of it, `rounds` decides, as of all tasks of the outbox."""


class BackgroundTask(ConsumerTask):
    """Code that knows nothing of the outbox runs here: whatever it raises is worth another attempt."""

    abstract = True
    redelivered_for: ClassVar[tuple[type[BaseException], ...]] = (Exception,)

    def _note(
        self,
        kwargs: dict[str, Any],
        exc: Exception,
        outcome: Attempt.Outcome,
        next_try_at: CombinedExpression | None = None,
    ) -> Attempt:
        attempt = super()._note(kwargs, exc, outcome, next_try_at)
        records.fail(kwargs["message_id"], exc, outcome)
        return attempt

    @staticmethod
    def on_buried(*, message_id: str, **_: Any) -> None:
        """Send `task_finished` when the dead letter is committed."""
        from outbox.django_tasks import execution  # needs the tasks framework, which may not be installed

        transaction.on_commit(functools.partial(execution.announce_failure, message_id), robust=True)


def options() -> dict[str, Any]:
    """The options of the Celery task, by the policy that the settings name."""
    policy = resilience.task_policy()
    return policy.task_options() | {"autoretry_for": (Exception,), "dont_autoretry_for": NOT_AT_ONCE}


@shared_task(base=BackgroundTask, bind=True, name="outbox.django_tasks.run", **options())
def run(self: BackgroundTask, *, message_id: str, **_: Any) -> bool:
    """Call the function."""
    from outbox.django_tasks import execution  # needs the tasks framework, which may not be installed

    return execution.run(message_id, worker=self.request.hostname or "")
