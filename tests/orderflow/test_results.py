"""The results of jobs, whatever they contain."""

from __future__ import annotations

import pytest
from django_celery_results.models import TaskResult

from orderflow.celery import app


@pytest.mark.django_db
def test_a_result_is_stored_whatever_its_error_contains():
    app.backend.store_result(
        "task-1", ValueError("a\x00\ud800"), "FAILURE", traceback="ValueError: a\x00\ud800"
    )

    assert TaskResult.objects.get(task_id="task-1").status == "FAILURE"
