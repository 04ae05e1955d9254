"""Permissions in the admin: two groups that every installation has."""

from __future__ import annotations

from typing import Any

from django.apps import apps as installed
from django.db.models import Q
from django.db.models.signals import post_migrate

MACHINERY = ("outbox", "orders", "notifications", "django_celery_results")
SUPPORT = Q(content_type__app_label="orders", codename__in=["view_order", "view_product", "cancel_order"]) | Q(
    content_type__app_label="notifications", codename="view_notification"
)
ON_CALL = Q(content_type__app_label__in=MACHINERY, codename__startswith="view_") & ~Q(
    codename__in=["view_apitoken", "view_supersededsecret"]
) | Q(content_type__app_label="outbox", codename__in=["replay_deadletter", "discard_deadletter"])
GROUPS = {"Support": SUPPORT, "On-call": ON_CALL}


def connect() -> None:
    """Create the groups once after migrations: the permissions of `sessions` are created last."""
    post_migrate.connect(
        ensure, sender=installed.get_app_config("sessions"), dispatch_uid="orderflow.login.groups"
    )


def ensure(sender: Any = None, *, apps: Any = installed, using: str = "default", **_: Any) -> None:
    """Ensure that the groups exist and have at least these permissions; additional ones are kept."""
    try:
        group_model, permission_model = apps.get_model("auth", "Group"), apps.get_model("auth", "Permission")
    except LookupError:  # not all apps are migrated yet
        return
    for name, wanted in GROUPS.items():
        group, _created = group_model.objects.using(using).get_or_create(name=name)
        group.permissions.add(*permission_model.objects.using(using).filter(wanted))
