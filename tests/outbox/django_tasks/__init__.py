"""
What Django documents of its tasks framework, and what the outbox adds, for `OutboxBackend`.

The tests need nothing of the project but its Celery queues: `tests/package/test_django_tasks.py` runs them with
other releases of Django, too.
"""

import pytest

pytest.importorskip("outbox.django_tasks.library", reason="needs Django 6, or the django-tasks package")
