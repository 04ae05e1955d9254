"""
A stream of orders that shows what can happen to an order, with the providers of the sandbox.

Most succeed. Some cards are declined, one product is out of stock, one cannot be shipped, one customer's
mailbox does not exist, the payment provider fails a few times and once drops its response after charging, and
one message on the broker is garbage.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import datetime as dt
import uuid
from collections.abc import Iterator
from typing import Any

import requests
from celery import current_app
from django.conf import settings
from django.db.models import F, Min
from django.utils import timezone
from kombu.exceptions import OperationalError

from notifications.models import Notification
from orders import adapters, services
from orders.models import Order, Product
from outbox import registry
from outbox.broker import dispatch
from outbox.models import Attempt, DeadLetter, OutboxMessage

STOCK = 500
PRODUCTS = {
    "MUG-BLUE": ("Blue stoneware mug", 1250),
    "TEA-ASSAM": ("Assam tea, 250 g", 890),
    "LAMP-BRASS": ("Brass desk lamp", 6400),
    "NOTE-A5": ("Notebook, A5, dotted", 720),
    "PEN-INK": ("Fountain pen", 3900),
    "SOAP-OLIVE": ("Olive soap", 450),
    "BAG-CANVAS": ("Canvas bag", 1600),
    "PLANT-FERN": ("Fern in a pot", 1450),
}
SOLD_OUT = "CLOCK-WALL"
UNSHIPPABLE = "NOSHIP-PIANO"
"""The sandbox's warehouse refuses SKUs that start with NOSHIP-."""

FLAKY_CARD = "pm_card_mastercard"
"""The payment provider's faults apply to this card only, so that the other orders show the usual speed."""

FAULTS: list[dict[str, Any]] = [
    {"fault": "error", "status": 500, "times": 2, "match": FLAKY_CARD},
    {"fault": "drop_after", "times": 1, "match": FLAKY_CARD},
]

NAMES = ("Ada", "Grace", "Edsger", "Barbara", "Donald", "Radia", "Leslie", "Frances", "Tony", "Margaret")


class SandboxMissing(Exception):
    """The demo needs the sandbox and the broker, and one of them does not respond."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of order: products, card and customer."""

    sku: str = ""
    card: str = "pm_card_visa"
    email: str = ""


GOOD = Kind()
SPECIAL = [
    Kind(card="pm_card_visa_chargeDeclined"),
    Kind(sku=SOLD_OUT),
    Kind(sku=UNSHIPPABLE),
    Kind(card="pm_card_visa_chargeDeclinedInsufficientFunds"),
    Kind(email="bounce@example.com"),
    Kind(card=FLAKY_CARD),
    Kind(card=FLAKY_CARD),
]
"""One of these is placed after every second good order."""


@dataclasses.dataclass(kw_only=True)
class Run:
    """One demo: its orders, and the time since which dead letters belong to it."""

    name: str
    began_at: dt.datetime
    order_ids: list[uuid.UUID] = dataclasses.field(default_factory=list)

    def orders(self) -> Any:
        """The orders of this run."""
        return Order.objects.filter(pk__in=self.order_ids)

    def statuses(self) -> collections.Counter[str]:
        """The number of orders in each status."""
        return collections.Counter(self.orders().values_list("status", flat=True))

    def open_orders(self) -> list[Order]:
        """The orders that are not final yet."""
        return list(self.orders().unfinished().order_by("number"))

    def notifications(self) -> tuple[int, int]:
        """The numbers of finished notifications (sent or given up) and of all notifications of its orders."""
        ended = Notification.objects.filter(order_id__in=self.order_ids).exclude(
            status__in=[Notification.Status.PENDING, Notification.Status.SENDING]
        )
        rows = OutboxMessage.objects.filter(key__in=[str(pk) for pk in self.order_ids])
        return ended.count(), sum(_notifications_of(row) for row in rows)

    def dead_letters(self) -> Any:
        """The dead letters since it began."""
        return DeadLetter.objects.open().filter(buried_at__gte=self.began_at)

    def unexpected_dead_letters(self) -> list[DeadLetter]:
        """The dead letters that the demo did not cause."""
        return [dead_letter for dead_letter in self.dead_letters() if not _is_expected(dead_letter)]

    def has_expected_dead_letters(self) -> bool:
        """Whether the garbage and the unknown mailbox have both become dead letters."""
        sources = {
            dead_letter.source == DeadLetter.Source.TASK
            for dead_letter in self.dead_letters()
            if _is_expected(dead_letter)
        }
        return sources == {True, False}

    def first_fulfilled_at(self) -> dt.datetime | None:
        """When the first order was shipped."""
        return self.orders().filter(status=Order.Status.FULFILLED).aggregate(at=Min("finished_at"))["at"]


def begin() -> Run:
    """Ensure that the products exist."""
    names = {**PRODUCTS, SOLD_OUT: ("Wall clock", 5200), UNSHIPPABLE: ("Upright piano", 189_900)}
    for sku, (name, price) in names.items():
        stock = 0 if sku == SOLD_OUT else STOCK
        product, created = Product.objects.get_or_create(
            sku=sku, defaults={"name": name, "price_minor": price, "on_hand": stock, "received": stock}
        )
        if not created and product.on_hand < stock:
            Product.objects.filter(pk=product.pk).update(
                on_hand=F("on_hand") + STOCK, received=F("received") + STOCK
            )
    return Run(name=f"{timezone.now():%Y%m%d-%H%M%S}", began_at=timezone.now())


def place(run: Run, count: int) -> Iterator[Order]:
    """Place `count` orders, at least one of each kind if the count allows it."""
    special = iter(SPECIAL)
    for number in range(count):
        kind = next(special, GOOD) if number % 2 or count - number <= len(SPECIAL) else GOOD
        order = _place(run, number, kind)
        run.order_ids.append(order.pk)
        yield order


def poison(run: Run) -> None:
    """Put garbage into the orders queue, as a faulty program might: the worker must survive and report it."""
    queue = current_app.amqp.queues["orders"]
    try:
        with current_app.connection_for_write() as link:
            link.ensure_connection(max_retries=1, interval_start=0)
            link.Producer().publish(
                f'{{"this is no task, but garbage of the demo {run.name}',
                exchange=queue.exchange,
                routing_key=queue.routing_key,
                content_type="application/json",
                content_encoding="utf-8",
                headers={"task": "orders.tasks.charge", "id": str(uuid.uuid4())},
            )
    except (OperationalError, OSError) as failure:
        raise SandboxMissing(f"the broker does not answer: {failure}") from failure


def delivered() -> dict[str, int | None]:
    """The numbers of e-mails, SMS and pushes that the sandbox received; None if a server does not respond."""
    if not settings.SANDBOX_URL:
        return {}
    try:
        return dict(_session().get(f"{settings.SANDBOX_URL}/api/counts", timeout=3).json())
    except (requests.RequestException, ValueError):
        return {}


def why_open(order: Order) -> str:
    """Why an order is not final, in one line."""
    attempt = Attempt.objects.filter(message_id=order.message_id).order_by("-pk").first()
    because = f"; {attempt.consumer}: {attempt.error_class}: {attempt.error}" if attempt else ""
    return f"{order.number} is {order.status}{because}"


def _place(run: Run, number: int, kind: Kind) -> Order:
    skus = list(PRODUCTS)
    chosen = [kind.sku] if kind.sku else [skus[number % len(skus)], skus[(number * 3 + 1) % len(skus)]]
    name = NAMES[number % len(NAMES)]
    return services.place_order(
        items=[services.Item(sku=sku, quantity=1 + number % 3) for sku in dict.fromkeys(chosen)],
        currency="GBP",
        payment_method=kind.card,
        contact=services.Contact(
            name=f"{name} Example",
            email=kind.email or f"{name.lower()}@example.com",
            phone=f"+4477009{number:05d}" if number % 3 == 0 else "",
            push_token=f"device-{run.name}-{number}" if number % 4 == 0 else "",
        ),
        country="GB",
        source="demo",
        idempotency=services.IdempotencyKey.of(
            scope="demo", key=f"{run.name}-{number}", request=dataclasses.asdict(kind)
        ),
    ).order


def _notifications_of(row: OutboxMessage) -> int:
    """The number of notifications that a message causes: one per task that its workflows start."""
    message = row.message(registry.load(row.event_name, row.event_version, row.payload))
    handlers = registry.workflows_for(message.event, only=["notifications."]).values()
    canvases = [canvas for handler in handlers if (canvas := handler(message)) is not None]
    return sum(len(list(dispatch.signatures_in(canvas))) for canvas in canvases)


def _is_expected(dead_letter: DeadLetter) -> bool:
    if dead_letter.source in (DeadLetter.Source.WORKER, DeadLetter.Source.BROKER):
        return dead_letter.message_id is None
    return (
        dead_letter.consumer == "notifications.tasks.send_email"
        and dead_letter.error_class == "RecipientRefused"
    )


@contextlib.contextmanager
def faults() -> Iterator[None]:
    """
    Make the payment provider fail inside the block; afterwards only these faults are removed.

    Raises:
        SandboxMissing: if the sandbox does not respond.
    """
    ours: list[int] = []
    try:
        for fault in FAULTS:
            ours.append(_request("POST", "/_control", **fault)["id"])
        yield
    finally:
        for fault_id in ours:
            with contextlib.suppress(SandboxMissing):  # it was stopped, or all faults have been cleared
                _request("DELETE", f"/_control/{fault_id}")


def _request(method: str, path: str, **body: Any) -> dict[str, Any]:
    if settings.STRIPE_API_BASE.rstrip("/") in ("", adapters.STRIPE):
        raise SandboxMissing("STRIPE_API_BASE names no sandbox: the demo never talks to a real provider")
    try:
        answer = _session().request(method, f"{settings.STRIPE_API_BASE}{path}", json=body, timeout=3)
        answer.raise_for_status()
        return dict(answer.json())
    except requests.RequestException as failure:
        raise SandboxMissing(
            f"the sandbox at {settings.STRIPE_API_BASE} does not answer: {failure}"
        ) from failure


def _session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    session.auth = ("sandbox", settings.SANDBOX_PASSWORD)
    return session
