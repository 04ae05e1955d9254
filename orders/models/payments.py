"""What the providers were asked to do for an order: charge it, refund it, ship it."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from orders.models.orders import Order
from outbox.database.storable import LONGEST_ID


class Payment(models.Model):
    """
    The intent to charge an order, written before the provider is called, and its result.

    `requested` means that a call may be in progress; `unknown` that a call was made and its response lost;
    `abandoned` that the provider has no such charge and no further call will be made.
    """

    class Status(models.TextChoices):
        REQUESTED = "requested", "requested"
        UNKNOWN = "unknown", "unknown"
        SUCCEEDED = "succeeded", "succeeded"
        DECLINED = "declined", "declined"
        ABANDONED = "abandoned", "abandoned"

    OPEN = (Status.REQUESTED, Status.UNKNOWN)

    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="payments")
    idempotency_key = models.CharField(max_length=100, unique=True)
    amount_minor = models.PositiveBigIntegerField()
    currency = models.CharField(max_length=3)
    status = models.CharField(max_length=10, choices=Status, default=Status.REQUESTED)
    provider_id = models.CharField(max_length=LONGEST_ID, blank=True)
    decline_code = models.CharField(max_length=100, blank=True)
    calls = models.PositiveIntegerField(default=1, help_text="How often the provider was asked, same key.")
    error = models.TextField(blank=True)
    requested_at = models.DateTimeField(db_default=Now())
    first_asked_at = models.DateTimeField(
        null=True,
        help_text="When the first call was about to be made that may have acted; NULL: none has.",
    )
    last_asked_at = models.DateTimeField(null=True, help_text="The same of the last such call; NULL: none.")
    resolved_at = models.DateTimeField(null=True, help_text="NULL while the outcome is open.")
    held_since = models.DateTimeField(
        null=True,
        help_text="Since when a person has to capture or cancel it at the provider; NULL: nobody has.",
    )

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["order"], condition=Q(status="succeeded"), name="one_captured_charge_per_order"
            ),
        ]
        indexes: ClassVar = [
            models.Index(
                fields=["order"],
                condition=Q(held_since__isnull=False, resolved_at__isnull=True),
                name="payments_that_are_held",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.idempotency_key}: {self.status}"

    @property
    def is_open(self) -> bool:
        return self.status in self.OPEN

    @property
    def is_held(self) -> bool:
        """Whether a person must capture or cancel it at the provider."""
        return self.held_since is not None and self.resolved_at is None


class Refund(models.Model):
    """The intent to refund a charge, written before the provider is called, and its result."""

    class Status(models.TextChoices):
        REQUESTED = "requested", "requested"
        SUCCEEDED = "succeeded", "succeeded"
        FAILED = "failed", "failed"

    payment = models.OneToOneField(Payment, on_delete=models.CASCADE, related_name="refund")
    idempotency_key = models.CharField(max_length=100, unique=True)
    amount_minor = models.PositiveBigIntegerField()
    currency = models.CharField(max_length=3)
    status = models.CharField(max_length=10, choices=Status, default=Status.REQUESTED)
    provider_id = models.CharField(max_length=LONGEST_ID, blank=True)
    failures = models.PositiveSmallIntegerField(
        default=0, db_default=0, help_text="How many refunds of this charge gave nothing back."
    )
    error = models.TextField(blank=True, default="", db_default="", help_text="Why it is open, or has failed.")
    given_back_by = models.CharField(
        max_length=200,
        blank=True,
        default="",
        db_default="",
        help_text="Who says that the money was given back by other means; empty when the provider did it.",
    )
    given_back_how = models.TextField(
        blank=True, default="", db_default="", help_text="What they said of it; empty when the provider did it."
    )
    requested_at = models.DateTimeField(db_default=Now())
    resolved_at = models.DateTimeField(null=True, help_text="NULL while the outcome is open.")

    def __str__(self) -> str:
        return f"{self.idempotency_key}: {self.status}"


class Shipment(models.Model):
    """The intent to ship an order, written before the warehouse is called, and its result."""

    class Status(models.TextChoices):
        REQUESTED = "requested", "requested"
        SHIPPED = "shipped", "shipped"
        REFUSED = "refused", "refused"

    order = models.OneToOneField(Order, on_delete=models.CASCADE, related_name="shipment")
    idempotency_key = models.CharField(max_length=100, unique=True)
    status = models.CharField(max_length=10, choices=Status, default=Status.REQUESTED)
    provider_id = models.CharField(max_length=LONGEST_ID, blank=True)
    carrier = models.CharField(max_length=100, blank=True)
    tracking_number = models.CharField(max_length=100, blank=True)
    error = models.TextField(blank=True)
    requested_at = models.DateTimeField(db_default=Now())
    resolved_at = models.DateTimeField(null=True, help_text="NULL while the outcome is open.")

    def __str__(self) -> str:
        return f"{self.idempotency_key}: {self.status}"
