"""The isolation of tests that commit."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.db import connection

from tests import flushing
from tests.factories import ProductFactory


@pytest.mark.django_db(transaction=True)
def test_a_flush_leaves_no_row_but_those_that_are_always_there():
    ProductFactory()
    User.objects.create_user("somebody")

    call_command("flush", interactive=False, verbosity=0)

    with connection.cursor() as cursor:
        for table in set(connection.introspection.table_names(cursor)) - {*flushing.KEPT, "django_migrations"}:
            cursor.execute(f"SELECT count(*) FROM {table}")
            assert cursor.fetchone() == (0,), table
    assert Permission.objects.filter(codename="replay_deadletter").exists()
