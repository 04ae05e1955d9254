"""Lists stay fast however long they are: PostgreSQL's plan of every statement of every page is checked."""

from __future__ import annotations

import json
import re
from urllib.parse import urlencode

import pytest
from django.contrib.admin.views.main import PAGE_VAR
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from orders import queries
from orders.dead_letters import attention
from orders.models import ApiClient, Order
from outbox.admin import lists, parts
from tests.admin.conftest import LISTS
from tests.slow import but_first

ROWS = 40_000
SHARE = 0.25
"""The largest allowed cost of a statement, as a share of the cost of reading the whole table."""

ID = "('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid"
AT = "now() - n * interval '1 minute'"
SEEDS = {
    "orders_product": f"""
        (sku, name, price_minor, currency, on_hand, reserved, shipped, received)
        SELECT 'SKU-' || n, 'Product ' || n, 100, 'GBP', 0, 0, 0, 0 FROM generate_series(1, {ROWS}) AS n""",
    "orders_order": f"""
        (id, number, source, client_reference, customer_name, customer_email, customer_phone,
         customer_push_token, country, payment_method, currency, total_minor, status, reason, version, due_at,
         resumptions, message_id, correlation_id, placed_at, finished_at)
        SELECT {ID}, 'OF-' || n, 'api', 'cart-' || n, '', 'c' || n || '@example.com', '', '',
          'GB', 'pm', 'GBP', 100,
          CASE WHEN n % 1000 = 0 THEN 'charge_unknown' WHEN n % 20 = 0 THEN 'rejected' ELSE 'fulfilled' END,
          '', 1,
          CASE WHEN n % 1000 = 0 THEN now() END, 0, {ID}, 'r' || n, {AT},
          CASE WHEN n % 1000 = 0 THEN NULL ELSE now() END
        FROM generate_series(1, {ROWS}) AS n""",
    "outbox_outboxmessage": f"""
        (id, event_name, event_version, key, payload, correlation_id, causation_id, trace, created_at, status,
         workflows, redeliveries, attempts, last_error, published_at)
        SELECT {ID}, 'orders.order_placed', 1, {ID}::text, '{{}}', 'r' || n, '', '{{}}', {AT},
          CASE WHEN n % 4000 = 0 THEN 'pending' ELSE 'published' END, '{{}}', 0, 0, '', {AT}
        FROM generate_series(1, {ROWS}) AS n""",
    "outbox_inboxentry": f"""
        (consumer, message_id, taken_at) SELECT 'consumer', {ID}, {AT} FROM generate_series(1, {ROWS}) AS n""",
    "outbox_attempt": f"""
        (consumer, message_id, outcome, failed_at, worker, error_class, error, traceback)
        SELECT 'consumer.' || n % 9, {ID}, 'retried', {AT}, 'w', 'Error' || n % 7, repeat('x', 80), ''
        FROM generate_series(1, {ROWS}) AS n""",
    "outbox_deadletter": f"""
        (source, consumer, message_id, workflow, event_name, key, task_id, error_class, error, traceback,
         fingerprint, payload, headers, attempts, worker, buried_at, digest, resolution, resolved_by, reason)
        SELECT 'task', 'consumer.' || n % 9, {ID}, '', '', {ID}::text, '', 'Error' || n % 7, repeat('x', 80),
          '', 'f' || n, '{{}}', '{{}}', 1, 'w', {AT}, 'd' || n,
          CASE WHEN n % 3 = 0 THEN 'open' ELSE 'discarded' END, '', ''
        FROM generate_series(1, {ROWS}) AS n""",
    "outbox_repairrecord": f"""
        (invariant, subject, what, repaired_at, repaired_by, reason)
        SELECT 'i', 'OF-' || n, 'repaired', {AT}, 'me', 'why' FROM generate_series(1, {ROWS}) AS n""",
    "outbox_replaycampaign": f"""
        (started_at, by, reason) SELECT {AT}, 'someone' || n, 'why' FROM generate_series(1, {ROWS}) AS n""",
    "outbox_verification": f"""
        (ran_at, took, providers, passed, by, findings)
        SELECT {AT}, interval '1 second', n % 9 = 0, n % 50 > 0, 'beat', '[]'
        FROM generate_series(1, {ROWS}) AS n""",
    "notifications_notification": f"""
        (message_id, order_id, order_number, channel, template, recipient, status, version, outcome_open,
         provider_message_id, subject, text, html, attempts, error, created_at, sent_at)
        SELECT {ID}, {ID}, 'OF-' || n, 'email', 'placed', 'c' || n || '@example.com',
          CASE WHEN n % 1000 = 0 THEN 'failed' ELSE 'sent' END, 1, FALSE, 'm' || n, '',
          repeat('x', 80), '', 1, '', {AT}, CASE WHEN n % 1000 = 0 THEN NULL ELSE now() END
        FROM generate_series(1, {ROWS}) AS n""",
    "notifications_preference": f"""
        (email, channel, enabled) SELECT 'c' || n || '@example.com', 'email', FALSE
        FROM generate_series(1, {ROWS}) AS n""",
}
AN_ID = "00000000-0000-7000-8000-000000003a98"
SEARCHES = {
    "orders_product": ["SKU-150", "nothing"],
    "orders_order": ["OF-15000", "15000", "c15000@example.com", "cart-15000", AN_ID, "nothing"],
    "outbox_outboxmessage": [AN_ID, "r15000", "orders.order_placed", "nothing"],
    "outbox_inboxentry": [AN_ID],
    "outbox_attempt": [AN_ID],
    "outbox_deadletter": ["15000", AN_ID, "f15000", "nothing"],
    "outbox_repairrecord": ["OF-15000", "nothing"],
    "outbox_replaycampaign": ["someone15000", "nobody"],
    "outbox_verification": [],
    "notifications_notification": ["OF-15000", "c15000@example.com", AN_ID, "m15000", "nothing"],
    "notifications_preference": ["C15000@example.com", "nothing"],
}


OURS = ("outbox_", "orders_", "notifications_")
"""How the names of the tables begin that pages read."""


@pytest.fixture
def seed(db, monkeypatch):
    """Fill a table with many rows; pages and the limit of counting are small in comparison, as usual."""
    monkeypatch.setattr(lists, "MOST_COUNTED", 100)
    monkeypatch.setattr(parts.LongListAdmin, "list_per_page", 10)

    def seed(table: str) -> None:
        tables = [name for name in connection.introspection.table_names() if name.startswith(OURS)]
        with connection.cursor() as cursor:
            # Other tests have left pages without rows and old statistics, by which PostgreSQL judges costs.
            cursor.execute(f"TRUNCATE {', '.join(tables)} CASCADE")
            cursor.execute(f"INSERT INTO {table} {SEEDS[table]}")
            cursor.execute(f"ANALYZE {', '.join(tables)}")

    return seed


@pytest.fixture
def many_orders(seed):
    seed("orders_order")


def plan(sql: str, how: str = "FORMAT JSON") -> dict:
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN ({how}) {sql}")
        (found,) = cursor.fetchone()
    return (json.loads(found) if isinstance(found, str) else found)[0]["Plan"]


def cost(sql: str) -> float:
    return plan(sql)["Total Cost"]


def read_in_vain(node: dict) -> int:
    """Return how many rows an executed plan has read that no condition matched."""
    removed = sum(node.get(f"Rows Removed by {why}", 0) for why in ("Filter", "Index Recheck"))
    return removed * node["Actual Loops"] + sum(map(read_in_vain, node.get("Plans", ())))


def dear(statements, table: str) -> list[str]:
    """Return the statements that cost too much, compared with reading the whole table."""
    limit = SHARE * cost(f"SELECT * FROM {table}")
    reads = [each["sql"] for each in statements if each["sql"].startswith(("SELECT", "WITH"))]
    assert [sql for sql in reads if table in sql]
    return [f"{cost(sql):.0f} > {limit:.0f}: {sql}" for sql in reads if cost(sql) > limit]


def addresses(client, window: str):
    """Yield the pages that a list offers: each filter, some searches, the next and the previous page."""
    listing = reverse(f"admin:{window}_changelist")
    first = client.get(listing)
    offered = re.findall(r'<a href="(\?[^"]+)"', first.text.replace("&amp;", "&"))
    yield from (listing, *(f"{listing}{query}" for query in offered))
    yield from (f"{listing}?{urlencode({'q': term})}" for term in SEARCHES[window])
    older = first.context["cl"].older
    yield f"{listing}{client.get(f'{listing}{older}').context['cl'].older}"
    yield f"{listing}{client.get(f'{listing}{older}').context['cl'].newer}"


def test_every_growing_list_is_tested():
    assert set(LISTS) - {"orders_apiclient", "orders_apitoken"} <= set(SEEDS)


@pytest.mark.parametrize("window", but_first(SEEDS))
def test_no_page_of_a_list_reads_the_whole_table(signed_in, seed, window):
    seed(window)
    client, found = signed_in("root"), []
    for address in addresses(client, window):
        with CaptureQueriesContext(connection) as statements:
            page = client.get(address)
        assert (page.status_code, len(page.context["cl"].result_list) <= 10) == (200, True), address
        found += dear(statements, window)

    assert found == []


@pytest.mark.parametrize("window", but_first(SEEDS))
def test_a_page_far_behind_begins_where_it_is(signed_in, seed, window):
    """
    Checked by the rows read: estimates assume that matching rows are evenly spread, but all of them are at the
    end.
    """
    seed(window)
    client, listing = signed_in("root"), reverse(f"admin:{window}_changelist")
    changes = client.get(listing).context["cl"]
    row = changes.model.objects.order_by(*changes.order)[ROWS * 3 // 4]
    for direction in (lists.OLDER, lists.NEWER):
        with CaptureQueriesContext(connection) as statements:
            page = client.get(listing, {PAGE_VAR: direction + lists.place_of(changes.order, row)})
        assert len(page.context["cl"].result_list) == 10
        for statement in statements:
            if statement["sql"].startswith("SELECT") and window in statement["sql"]:
                assert read_in_vain(plan(statement["sql"], "FORMAT JSON, ANALYZE")) < ROWS / 50, statement[
                    "sql"
                ]


@pytest.mark.slow
def test_the_few_orders_that_wait_for_a_person_are_found_among_many_charges(many_orders):
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO orders_payment (order_id, idempotency_key, amount_minor, currency, status, provider_id,
                decline_code, calls, error, requested_at, held_since, resolved_at)
            SELECT id, 'k' || id, 100, 'GBP', CASE WHEN due_at IS NULL THEN 'succeeded' ELSE 'unknown' END,
                '', '', 1, '', now(), CASE WHEN number IN ('OF-2000', 'OF-3000') THEN now() END,
                CASE WHEN due_at IS NULL THEN now() END
            FROM orders_order
            """
        )
        cursor.execute("ANALYZE orders_payment")
    with CaptureQueriesContext(connection) as statements:
        found = list(attention.waiting(Order.objects.order_by("-placed_at", "id"))[:10])
    with CaptureQueriesContext(connection) as of_a_page:
        assert attention.needed_by(found) == {order.pk for order in found}

    assert [order.number for order in found] == ["OF-2000", "OF-3000"]
    assert dear([*statements, *of_a_page], "orders_payment") == []


@pytest.fixture
def orders_of(many_orders):
    """The orders of one of three clients: one has `most` of all orders, one `some`, and one `none`."""
    clients = {name: ApiClient.objects.create(name=name).pk for name in ("most", "some", "none")}
    Order.objects.update(client_id=clients["most"])
    Order.objects.filter(number__endswith="77").update(client_id=clients["some"])
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE orders_order")
    return lambda name: Order.objects.of_client(clients[name]) if name in clients else Order.objects.all()


@pytest.mark.slow
@pytest.mark.parametrize("whose", ["everybody's", "most", "some", "none"])
def test_no_page_of_the_apis_list_reads_the_whole_table(orders_of, whose):
    among = orders_of(whose)
    middle = Order.objects.get(number="OF-15000")
    wanted = [
        {},
        {"status": "charge_unknown"},
        {"status": "fulfilled"},
        {"status": "cancelling"},
        {"client_reference": "cart-15000"},
        {"email": "c15000@example.com"},
        {"placed_after": middle.placed_at},
        {"placed_before": middle.placed_at},
        {"placed_before": middle.placed_at, "status": "rejected"},
    ]
    found = []
    for filters in wanted:
        with CaptureQueriesContext(connection) as statements:
            _, cursor = queries.orders_page(among=among, limit=20, **filters)
            if cursor:
                queries.orders_page(among=among, limit=20, cursor=cursor, **filters)
        found += dear(statements, "orders_order")

    assert found == []


@pytest.mark.parametrize("whose", but_first(["some", "most", "none"]))
def test_no_page_of_one_clients_orders_reads_the_whole_table(signed_in, orders_of, whose):
    client, found = signed_in("root"), []
    chosen = {"client": ApiClient.objects.get(name=whose).pk}
    listing = reverse("admin:orders_order_changelist")
    asked = [f"?{urlencode(chosen | more)}" for more in ({}, {"status": "fulfilled"}, {"q": "OF-15000"})]
    if whose != "none":
        asked.append(client.get(listing, chosen).context["cl"].older)
    for query in asked:
        with CaptureQueriesContext(connection) as statements:
            page = client.get(listing + query)
        assert {order.client_id for order in page.context["cl"].result_list} <= set(chosen.values())
        found += dear(statements, "orders_order")

    assert found == []


@pytest.mark.slow
def test_pages_follow_each_other_and_lead_back(signed_in, many_orders):
    client = signed_in("root")
    listing = reverse("admin:orders_order_changelist")

    def rows(page) -> list[str]:
        return [order.number for order in page.context["cl"].result_list]

    first = client.get(listing)
    second = client.get(listing + first.context["cl"].older)
    assert rows(first) == [f"OF-{number}" for number in range(1, 11)]
    assert rows(second) == [f"OF-{number}" for number in range(11, 21)]
    assert rows(client.get(listing + second.context["cl"].newer)) == rows(first)
    assert (first.context["cl"].newer, first.context["cl"].counted) == ("", "more than 100")
    assert "more than 100 orders" in first.text

    filtered = client.get(listing, {"status": "charge_unknown"})
    assert filtered.context["cl"].result_count == ROWS // 1000
    for nonsense in ("after-", "after-x", "before-WzFd", "2", "after-WyJ4IiwieSJd", "é"):
        assert rows(client.get(listing, {"p": nonsense})) == rows(first)


@pytest.mark.slow
def test_rows_of_one_moment_are_not_lost_between_pages(signed_in, many_orders):
    same = [f"OF-{number}" for number in range(1, 36)]
    Order.objects.filter(number__in=same).update(placed_at="2100-01-01T00:00Z")
    client, seen, address = signed_in("root"), [], "?"
    for _ in range(4):
        changelist = client.get(reverse("admin:orders_order_changelist") + address).context["cl"]
        seen += [order.number for order in changelist.result_list]
        address = changelist.older

    assert len(set(seen)) == len(seen) == 40
    assert set(seen) >= set(same)
