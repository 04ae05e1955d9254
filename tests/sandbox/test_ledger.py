"""The ledger: what it shows, in pages, and that it outlives the server."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import stripe

from orderflow.sandbox.launch import Sandbox
from orderflow.sandbox.ledger import Ledger

from .clients import ask, payment, push_session, send_push, ship, shipment, stripe_client

MANY = 2_500


@pytest.fixture(scope="module")
def long_ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    data_dir = tmp_path_factory.mktemp("long")
    ledger = Ledger(data_dir / "warehouse.sqlite3")
    with ledger.transaction():
        for number in range(MANY):
            kind = "refusal" if number % 10 == 9 else "shipment"
            ledger.record(
                kind, f"id-{number}", {"id": f"id-{number}", "order": f"OF-{number}é"}, key=f"key-{number}"
            )
    with Sandbox("warehouse", data_dir) as warehouse:
        yield warehouse


def test_a_long_ledger_is_returned_completely_by_default(long_ledger: Sandbox) -> None:
    ledger = ask(long_ledger, "GET", "/_ledger").json

    assert (ledger["name"], ledger["total"], ledger["has_more"]) == ("warehouse", MANY, False)
    assert [entry["id"] for entry in ledger["entries"]] == [f"id-{number}" for number in range(MANY)]


def test_a_long_ledger_is_returned_in_pages(long_ledger: Sandbox) -> None:
    seen, after, pages = [], 0, 0
    while True:
        page = ask(long_ledger, "GET", f"/_ledger?limit=600&after={after}").json
        seen += [entry["seq"] for entry in page["entries"]]
        after, pages = page["next_after"], pages + 1
        if not page["has_more"]:
            break

    assert (seen, pages) == (list(range(1, MANY + 1)), 5)
    assert len(long_ledger.ledger()) == MANY


def test_a_long_ledger_is_returned_as_lines(long_ledger: Sandbox) -> None:
    answer = ask(long_ledger, "GET", "/_ledger?format=ndjson&after=100")

    assert answer.headers["Content-Type"] == "application/x-ndjson"
    assert [json.loads(line)["seq"] for line in answer.body.splitlines()] == list(range(101, MANY + 1))


def test_a_ledger_can_be_read_backwards_filtered_and_counted(long_ledger: Sandbox) -> None:
    newest = ask(long_ledger, "GET", "/_ledger?order=newest&limit=2").json

    assert [entry["id"] for entry in newest["entries"]] == [f"id-{MANY - 1}", f"id-{MANY - 2}"]
    assert long_ledger.count(kind="refusal") == MANY // 10
    assert [entry["id"] for entry in long_ledger.ledger(match="of-1234é")] == ["id-1234"]
    assert [entry["id"] for entry in long_ledger.ledger(match="KEY-1234", kind="shipment")] == ["id-1234"]
    assert long_ledger.ledger(match="%") == long_ledger.ledger(match='"') == []


def test_an_invalid_query_of_the_ledger_is_refused(long_ledger: Sandbox) -> None:
    answer = ask(long_ledger, "GET", "/_ledger?limit=many")

    assert (answer.status, answer.json) == (400, {"error": '"limit" must be a whole number.'})
    assert "GET /_health" in ask(long_ledger, "GET", "/_nothing").json["error"]
    assert ask(long_ledger, "GET", "/_health").json == {"name": "warehouse", "status": "ok"}


def test_a_ledger_can_be_read_while_it_grows(warehouse: Sandbox) -> None:
    with ThreadPoolExecutor(8) as pool:
        shipped = pool.map(lambda number: ship(warehouse, f"key-{number}").status, range(200))
        lengths = [len(warehouse.ledger()) for _ in range(20)]

        assert set(shipped) == {201}
    assert lengths == sorted(lengths)
    assert warehouse.count() == 200


def test_clearing_the_ledger_deletes_the_keys_too(warehouse: Sandbox) -> None:
    first = ship(warehouse)
    warehouse.clear()

    assert warehouse.ledger() == warehouse.calls() == []
    again = ship(warehouse)
    assert again.status == 201
    assert again.json["id"] != first.json["id"]


def test_a_killed_server_restarts_with_everything_it_did(tmp_path: Path) -> None:
    with Sandbox("payments", tmp_path) as payments:
        client = stripe_client(payments)
        paid = client.v1.payment_intents.create(payment(), {"idempotency_key": "paid"})
        with pytest.raises(stripe.CardError):
            client.v1.payment_intents.create(
                payment(payment_method="pm_card_visa_chargeDeclined"), {"idempotency_key": "declined"}
            )
        client.v1.refunds.create({"payment_intent": paid.id, "amount": 100}, {"idempotency_key": "refunded"})
        before, url = payments.ledger(), payments.url

        payments.kill()
        payments.start()

        assert payments.url == url
        assert payments.ledger() == before
        again = client.v1.payment_intents.create(payment(), {"idempotency_key": "paid"})
        assert (again.id, again.last_response.headers["Idempotent-Replayed"]) == (paid.id, "true")
        with pytest.raises(stripe.CardError) as raised:
            client.v1.payment_intents.create(
                payment(payment_method="pm_card_visa_chargeDeclined"), {"idempotency_key": "declined"}
            )
        assert raised.value.headers["Idempotent-Replayed"] == "true"
        client.v1.refunds.create({"payment_intent": paid.id, "amount": 100}, {"idempotency_key": "refunded"})
        assert [entry["amount"] for entry in payments.ledger(kind="refund")] == [100]


def test_a_killed_server_has_recorded_everything_it_responded_to(tmp_path: Path) -> None:
    with Sandbox("warehouse", tmp_path) as warehouse:
        answered = []

        def work(worker: int) -> None:
            for number in range(10_000):
                try:
                    answer = ship(warehouse, f"{worker}-{number}", shipment(order_id=f"{worker}-{number}"))
                except (OSError, http.client.HTTPException):
                    return
                answered.append(answer.json["id"])

        with ThreadPoolExecutor(4) as pool:
            workers = [pool.submit(work, worker) for worker in range(4)]
            while len(answered) < 100:
                time.sleep(0.005)
            warehouse.kill()
            for worker in workers:
                worker.result()
        warehouse.start()

        written = [entry["id"] for entry in warehouse.ledger()]
        assert len(written) == len(set(written))
        assert set(answered) <= set(written)
        # Each of the four may have acted once without its answer coming through.
        assert len(written) - len(answered) <= 4


def test_an_access_token_survives_the_push_server(tmp_path: Path) -> None:
    with Sandbox("push", tmp_path) as push:
        session = push_session(push)
        send_push(push, session)
        push.kill()
        push.start()
        push.clear()

        assert send_push(push, session).status_code == 200
        assert [call["path"] for call in push.calls()] == ["/v1/projects/shop/messages:send"]
