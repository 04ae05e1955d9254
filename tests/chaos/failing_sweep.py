"""Makes the sweep of orders fail: `celery worker -I tests.chaos.failing_sweep`."""

from __future__ import annotations

from orders import sweep


def fail(*_: object, **__: object) -> None:
    raise RuntimeError("the sweep fails for ada.lovelace@example.com")


sweep.resume_overdue = fail
