"""Products, orders with their lines and history, and the keys under which clients placed them."""

from __future__ import annotations

import uuid
from typing import ClassVar

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from orders.moves import FINAL, Status
from outbox.database import uuid7


def new_id() -> uuid.UUID:
    """Return a UUIDv7: it also identifies the order at the providers, so it must be unique across databases."""
    return uuid7.new()


class Product(models.Model):
    """A product and its stock: everything that was received is on hand, reserved or shipped."""

    sku = models.CharField(max_length=64, unique=True)
    name = models.CharField(max_length=200)
    price_minor = models.PositiveBigIntegerField(help_text="Minor units of `currency`.")
    currency = models.CharField(max_length=3, default="GBP", help_text="ISO 4217.")
    on_hand = models.PositiveBigIntegerField(default=0, help_text="Free to be reserved.")
    reserved = models.PositiveBigIntegerField(default=0, help_text="Promised to orders not yet shipped.")
    shipped = models.PositiveBigIntegerField(default=0)
    received = models.PositiveBigIntegerField(default=0, help_text="All that ever came in.")

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(received=F("on_hand") + F("reserved") + F("shipped")), name="stock_adds_up"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.sku} {self.name}"


class OrderQuerySet(models.QuerySet["Order"]):
    """Selections of orders."""

    def unfinished(self) -> OrderQuerySet:
        """Orders with work left to do."""
        return self.exclude(status__in=FINAL)

    def overdue(self) -> OrderQuerySet:
        """Unfinished orders whose next step is late."""
        return self.unfinished().filter(due_at__lt=Now())

    def of_client(self, client_id: int) -> OrderQuerySet:
        """Orders that this API client placed."""
        return self.filter(client_id=client_id)


class Order(models.Model):
    """An order, its customer's contact, and its state."""

    Status = Status

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    number = models.CharField(
        max_length=20,
        unique=True,
        editable=False,
        help_text="What customers and support staff call the order.",
    )
    source = models.CharField(max_length=20, default="api", help_text="api, cli, import or demo.")
    client = models.ForeignKey(
        "ApiClient",
        null=True,
        on_delete=models.PROTECT,
        related_name="+",
        db_index=False,
        help_text="Whose order it is; NULL when no API client has placed it, or none is known to have.",
    )
    client_reference = models.CharField(max_length=100, blank=True, help_text="The client's own number.")
    customer_name = models.CharField(max_length=200, blank=True)
    customer_email = models.EmailField(blank=True)
    customer_phone = models.CharField(max_length=20, blank=True, help_text="E.164, for SMS.")
    customer_push_token = models.CharField(max_length=300, blank=True)
    country = models.CharField(max_length=60, blank=True)
    payment_method = models.CharField(max_length=100, help_text="The provider's token, never a card number.")
    currency = models.CharField(max_length=3, help_text="ISO 4217.")
    total_minor = models.PositiveBigIntegerField(help_text="Minor units of `currency`.")
    status = models.CharField(max_length=20, choices=Status, default=Status.PLACED)
    reason = models.TextField(blank=True, help_text="Why it was rejected or cancelled, fit for the customer.")
    version = models.PositiveIntegerField(default=1, help_text="Counts every change; fences late workers.")
    due_at = models.DateTimeField(
        null=True, help_text="When the next step is due at the latest; NULL when none is, because it is final."
    )
    lease_until = models.DateTimeField(null=True, help_text="A step is at work until then; NULL when none is.")
    resumptions = models.PositiveIntegerField(default=0, help_text="How often the sweep has taken it up.")
    message_id = models.UUIDField(help_text="The message whose workflow moves the order on.")
    correlation_id = models.CharField(max_length=64, blank=True)
    placed_at = models.DateTimeField(db_default=Now())
    cancel_requested_at = models.DateTimeField(null=True, help_text="NULL: nobody asked to cancel.")
    finished_at = models.DateTimeField(null=True, help_text="NULL until the order is final.")

    objects = OrderQuerySet.as_manager()

    is_from_before = False
    """Whether providers may know more about it than the database. Set only by `claims`."""

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=(Q(status__in=sorted(FINAL), due_at__isnull=True, finished_at__isnull=False))
                | (~Q(status__in=sorted(FINAL)) & Q(due_at__isnull=False, finished_at__isnull=True)),
                name="unfinished_orders_are_due",
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["due_at"], condition=Q(due_at__isnull=False), name="orders_due"),
            models.Index(fields=["-placed_at", "id"], name="orders_newest_first"),
            models.Index(fields=["customer_email"], name="orders_by_email"),
            models.Index(fields=["client_reference"], name="orders_by_reference"),
            models.Index(fields=["status", "-placed_at"], name="orders_by_status"),
            models.Index(
                fields=["client", "-placed_at", "id"],
                condition=Q(client__isnull=False),
                name="orders_by_client",
            ),
        ]
        permissions: ClassVar = [("cancel_order", "Can cancel orders")]

    def __str__(self) -> str:
        return self.number

    @property
    def is_final(self) -> bool:
        return self.status in FINAL

    @property
    def etag(self) -> str:
        """Changes whenever what the API shows of the order changes."""
        return f'"{self.version}{"-cancel" if self.cancel_requested_at else ""}"'


class OrderLine(models.Model):
    """A quantity of one product, at the price when it was ordered."""

    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="lines")
    product = models.ForeignKey(Product, on_delete=models.PROTECT, related_name="+")
    quantity = models.PositiveIntegerField()
    unit_price_minor = models.PositiveBigIntegerField(help_text="Minor units of the order's currency.")

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["order", "product", "unit_price_minor"], name="one_line_per_product_and_price"
            ),
            models.CheckConstraint(condition=Q(quantity__gt=0), name="something_is_ordered"),
        ]

    def __str__(self) -> str:
        return f"{self.quantity} × {self.product_id}"

    @property
    def total_minor(self) -> int:
        return self.quantity * self.unit_price_minor


class OrderTransition(models.Model):
    """One move of an order. Append-only: the database refuses changes."""

    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="transitions")
    from_status = models.CharField(max_length=20, blank=True, help_text="Empty when the order was placed.")
    to_status = models.CharField(max_length=20, choices=Status)
    at = models.DateTimeField(db_default=Now())
    message_id = models.UUIDField(null=True, help_text="NULL when no message did it, as when it was placed.")
    task = models.CharField(max_length=100, blank=True)
    actor = models.CharField(max_length=200, blank=True)
    note = models.TextField(blank=True)

    class Meta:
        indexes: ClassVar = [models.Index(fields=["order", "id"], name="transitions_in_order")]

    def __str__(self) -> str:
        return f"{self.from_status or '∅'} → {self.to_status}"


class IdempotencyRecord(models.Model):
    """
    The effect of a client's key, written with the order it placed; a repeated request gets the same response.

    Kept as long as the order: if it were deleted earlier, the key could place the order again.
    """

    scope = models.CharField(max_length=100, help_text="Whose key: the API client, the import, the CLI.")
    key = models.CharField(max_length=255)
    fingerprint = models.CharField(max_length=64, help_text="SHA-256 of the request.")
    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="+")
    status_code = models.PositiveSmallIntegerField(default=201)
    answer = models.JSONField(default=dict)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["scope", "key"], name="one_order_per_key"),
        ]

    def __str__(self) -> str:
        return f"{self.scope}: {self.key}"
