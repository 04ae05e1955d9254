"""
Order admin: an order's whole history on one page, with an action to cancel; product admin: prices and
deliveries.

API clients and their tokens are in `clients`.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db.models import F, Prefetch, Q, QuerySet, prefetch_related_objects
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.views.decorators.http import require_POST

from orders import moves, queries, services
from orders.admin import attention, clients
from orders.admin import story as stories
from orders.contracts.currencies import written as amount
from orders.models import Order, Payment, Product, Shipment
from outbox.admin.lists import back_to, filters_of
from outbox.admin.parts import LongListAdmin, ReadOnlyAdmin, as_uuid, chip, link_keys_with, may_view, moment
from outbox.admin.traces import TracedAdmin
from outbox.command_lines import counted
from outbox.models import DeadLetter, OutboxMessage

CHIPS = {
    "placed": ("wait", "○"),
    "validated": ("wait", "◔"),
    "charge_unknown": ("warn", "?"),
    "charged": ("wait", "◑"),
    "fulfilled": ("good", "✓"),
    "rejected": ("bad", "✕"),
    "cancelling": ("warn", "↶"),
    "cancelled": ("quiet", "–"),
    "requested": ("wait", "…"),
    "unknown": ("warn", "?"),
    "succeeded": ("good", "✓"),
    "declined": ("bad", "✕"),
    "abandoned": ("quiet", "–"),
    "shipped": ("good", "✓"),
    "refused": ("bad", "✕"),
}
MOST_AT_ONCE = 500
"""Maximum number of orders on a confirmation page; each is cancelled in its own transaction."""


def order_links(keys: Iterable[str]) -> dict[str, SafeString]:
    """Return links for the keys that are orders, with the order's number as text."""
    ids = [found for key in keys if (found := as_uuid(key))]
    numbers = Order.objects.filter(pk__in=ids).values_list("pk", "number")
    return {
        str(pk): format_html(
            '<a href="{}" class="of-number">{}</a>', reverse("admin:orders_order_change", args=[pk]), number
        )
        for pk, number in numbers
    }


link_keys_with(order_links)
clients.register(admin.site)


@admin.register(Order)
class OrderAdmin(TracedAdmin, ReadOnlyAdmin):
    """Orders are changed only by their workflow; staff may request a cancellation."""

    class Media:
        css: ClassVar = {"all": ["orders/admin.css"]}

    list_display = ("number", "state", "total", "customer_email", "placed", "due")
    list_filter = (attention.AttentionFilter, "status", "placed_at", clients.ClientFilter)
    search_fields = ("number", "customer_email", "client_reference", "id")
    search_help_text = (
        "An order number, e-mail address, client's reference, order id or message id (exact match)."
    )
    ordering = ("-placed_at", "id")
    actions = ("cancel",)
    fieldsets = (
        (
            None,
            {
                "fields": (
                    ("number", "state", "total"),
                    ("placed", "cancel_requested_at", "finished_at"),
                    "reason",
                )
            },
        ),
        (
            "Customer",
            {
                "fields": (
                    ("customer_name", "customer_email", "customer_phone"),
                    ("country", "client_reference"),
                )
            },
        ),
        (
            "Machinery",
            {
                "classes": ("collapse",),
                "fields": (
                    "id",
                    "source",
                    "placed_by",
                    "payment_method",
                    "version",
                    "due_at",
                    "lease_until",
                    "resumptions",
                    "message_id",
                    "correlation_id",
                ),
            },
        ),
    )

    @admin.display(description="status", ordering="status")
    def state(self, order: Order) -> SafeString:
        shown = chip(order.status, order.get_status_display(), CHIPS)
        if order.cancel_requested_at and not order.is_final:
            shown = format_html(
                '{} <span class="of-chip of-warn"><span aria-hidden="true">↶</span> to be cancelled</span>',
                shown,
            )
        return attention.with_chip(order, shown)

    @admin.display(description="total", ordering="total_minor")
    def total(self, order: Order) -> SafeString:
        return format_html('<span class="of-amount">{}</span>', amount(order.total_minor, order.currency))

    @admin.display(description="placed at (UTC)", ordering="placed_at")
    def placed(self, order: Order) -> SafeString:
        return moment(order.placed_at)

    @admin.display(description="API client", empty_value="–")
    def placed_by(self, order: Order) -> str | None:
        return order.client.name if order.client else None

    @admin.display(description="due at (UTC)", ordering="due_at", empty_value="–")
    def due(self, order: Any) -> SafeString | None:
        if order.due_at is None:
            return None
        if order.due_at > order.read_at:
            return moment(order.due_at)
        return format_html("{} {}", moment(order.due_at), chip("late", "late", {"late": ("warn", "!")}))

    def matching(self, term: str) -> Q:
        number = f"OF-{term}" if term.isascii() and term.isdigit() else term.upper()
        emails = sorted({term, term.lower()})
        found = Q(number=number) | Q(customer_email__in=emails) | Q(client_reference=term)
        if wanted := as_uuid(term):
            keys = OutboxMessage.objects.filter(pk=wanted).values_list("key", flat=True)
            found |= Q(pk__in=[wanted, *filter(None, map(as_uuid, keys))])
        return found

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return attention.OrderList

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("orders.cancel_order")

    @admin.action(description="Request cancellation…", permissions=["cancel"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Order]) -> HttpResponse | None:
        ids = list(queryset.values_list("pk", flat=True)[: MOST_AT_ONCE + 1])
        if len(ids) > MOST_AT_ONCE:
            self.message_user(
                request, f"More than {MOST_AT_ONCE} orders at once: narrow the selection.", messages.ERROR
            )
            return None
        return self._confirmation(request, ids)

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(require_POST(self.request_cancellation))
        return [path("cancel/", view, name="orders_order_cancel"), *super().get_urls()]

    def request_cancellation(self, request: HttpRequest) -> HttpResponse:
        """Show a confirmation for the orders in `ids`; once it is confirmed, request their cancellation."""
        if not (self.has_view_permission(request) and self.has_cancel_permission(request)):
            raise PermissionDenied
        ids = [found for part in request.POST.get("ids", "").split(",") if (found := as_uuid(part))]
        ids = ids[:MOST_AT_ONCE]
        if "confirmed" not in request.POST:
            return self._confirmation(request, ids)
        asked, refused = 0, []
        for order in Order.objects.filter(pk__in=ids):
            if order.cancel_requested_at:
                continue
            try:
                services.request_cancellation(order_id=order.pk, requested_by=request.user.get_username())
            except services.NotCancellable as error:
                refused.append(str(error))
                continue
            self.log_change(request, order, "Cancellation requested.")
            asked += 1
        if asked:
            orders = counted(asked, "order")
            self.message_user(request, f"Cancellation of {orders} requested.", messages.SUCCESS)
        if refused:
            self.message_user(request, f"Too late to cancel: {', '.join(refused)}.", messages.WARNING)
        if not asked and not refused:
            self.message_user(request, "Nothing to do: it was requested before.", messages.WARNING)
        return HttpResponseRedirect(back_to(request, Order, ids))

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        order: Order = context["original"]
        prefetch_related_objects([order], Prefetch("payments", Payment.objects.select_related("refund")))
        story = stories.current()
        context |= {
            "filters": filters_of(request),
            "outlook": story.outlook(order),
            "command": story.way_out(order) if request.user.has_perm("outbox.replay_deadletter") else "",
            "causes": attention.causes(request, order),
            "state": self.state(order),
            "lines": [
                (line, amount(line.unit_price_minor, order.currency), amount(line.total_minor, order.currency))
                for line in order.lines.select_related("product").order_by("pk")
            ],
            "total": amount(order.total_minor, order.currency),
            "payments": [
                (
                    payment,
                    amount(payment.amount_minor, payment.currency),
                    chip(payment.status, payment.get_status_display(), CHIPS),
                    getattr(payment, "refund", None),
                )
                for payment in queries.payments(order)
            ],
            "shipments": [
                (shipment, chip(shipment.status, shipment.get_status_display(), CHIPS))
                for shipment in Shipment.objects.filter(order=order)
            ],
            "timeline": [(entry, _link(request, entry)) for entry in story.entries(order)],
            "can_cancel": order.status in moves.CANCELLABLE
            and not order.cancel_requested_at
            and self.has_cancel_permission(request),
        }
        return super().render_change_form(request, context, *args, **kwargs)

    def _confirmation(self, request: HttpRequest, ids: list[uuid.UUID]) -> TemplateResponse:
        orders = list(Order.objects.filter(pk__in=ids).order_by("-placed_at", "pk"))
        open_to_it = [o for o in orders if o.status in moves.CANCELLABLE and not o.cancel_requested_at]
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": "Request cancellation",
            "orders": [(o, self.state(o), self.total(o), o in open_to_it) for o in orders],
            "count": len(open_to_it),
            "ids": ",".join(str(o.pk) for o in orders),
            "filters": filters_of(request),
            "back": back_to(request, Order, ids),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/orders/order/cancel.html", context)


def _link(request: HttpRequest, entry: Any) -> str:
    """The URL of an entry's details, if the user may see them."""
    if entry.kind == "dead letter" and may_view(request, DeadLetter):
        return reverse("admin:outbox_deadletter_change", args=[entry.reference.rpartition(" ")[2]])
    if entry.kind == "message" and may_view(request, OutboxMessage):
        return reverse("admin:outbox_outboxmessage_change", args=[entry.reference])
    return ""


class ReceiveStockForm(forms.Form):
    """A delivered quantity. `seen` is the total received when the page was made, so that it counts once."""

    quantity = forms.IntegerField(min_value=1, max_value=10_000_000)
    seen = forms.IntegerField(widget=forms.HiddenInput)


@admin.register(Product)
class ProductAdmin(LongListAdmin):
    """Names and prices can be edited. Stock changes through orders and received deliveries."""

    class Media:
        css: ClassVar = {"all": ["orders/admin.css"]}

    list_display = ("sku", "name", "price", "on_hand", "reserved", "shipped", "received")
    search_fields = ("sku",)
    search_help_text = "The beginning of a SKU."
    ordering = ("sku",)
    fieldsets = (
        (None, {"fields": ("sku", "name", "price_minor", "currency")}),
        ("Stock", {"fields": ("on_hand", "reserved", "shipped", "received")}),
    )

    def matching(self, term: str) -> Q:
        return Q(sku__startswith=term) | Q(sku__startswith=term.upper())

    @admin.display(description="price", ordering="price_minor")
    def price(self, product: Product) -> str:
        return amount(product.price_minor, product.currency)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        stock = ("on_hand", "reserved", "shipped", "received")
        return (*stock, "sku", "currency") if obj else stock

    def save_model(self, request: HttpRequest, obj: Product, form: Any, change: bool) -> None:
        # Only these two fields: the form may be minutes old, and orders have changed the stock since.
        obj.save(update_fields=["name", "price_minor"] if change else None)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.receive)
        return [path("<int:pk>/receive/", view, name="orders_product_receive"), *super().get_urls()]

    def receive(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Receive a delivery."""
        if not self.has_change_permission(request):
            raise PermissionDenied
        product = self.get_object(request, str(pk))
        if product is None:
            raise Http404(pk)
        form = ReceiveStockForm(request.POST or None, initial={"seen": product.received})
        if form.is_valid():
            quantity = form.cleaned_data["quantity"]
            if Product.objects.filter(pk=pk, received=form.cleaned_data["seen"]).update(
                received=F("received") + quantity, on_hand=F("on_hand") + quantity
            ):
                self.log_change(request, product, f"Received {quantity}.")
                self.message_user(request, f"Received {quantity} × {product}.", messages.SUCCESS)
            else:
                self.message_user(
                    request,
                    "Not counted: stock was received since the page was opened. Was it this delivery?",
                    messages.WARNING,
                )
            return HttpResponseRedirect(reverse("admin:orders_product_change", args=[pk]))
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": f"Receive stock: {product}",
            "product": product,
            "form": form,
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/orders/product/receive.html", context)
