"""The sessions of tasks in threads: taken from a pool, given back for each call and after each task."""

from __future__ import annotations

import ast
import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import psycopg_pool
import pytest
from celery import current_app
from django.db import OperationalError, connection, connections, transaction
from django.db.backends.postgresql.base import DatabaseWrapper

from orders.models import Product
from outbox import resilience, telemetry
from outbox.consumer import is_server_error
from outbox.database import sessions as given_back
from outbox.database.session_pool import SessionPool
from outbox.worker import sessions
from tests.processes import ROOT, eventually

pytestmark = pytest.mark.django_db(transaction=True)

MOST = 3


@pytest.fixture
def task() -> Any:
    return current_app.tasks["orders.tasks.validate"]


def worker(pool: str, size: int) -> Any:
    """Return what the signal of a worker's start has of it."""
    return SimpleNamespace(app=current_app, pool_cls=pool, concurrency=size)


@pytest.fixture
def started(settings) -> Iterator[None]:
    """A worker with a pool of threads starts, and ends."""
    settings.OUTBOX_SESSION_POOL_SIZE = MOST
    sessions.begin(sender=worker("threads", 32))
    yield
    sessions.end()
    sessions._Shared.most = 0
    DatabaseWrapper._connection_pools.clear()


@pytest.fixture
def perform(started, task) -> Iterator[Callable[..., Any]]:
    """Run functions as tasks in threads, as many as 32 at a time."""
    with ThreadPoolExecutor(32) as threads:

        def run(work: Callable[..., Any], *arguments: Any) -> Any:
            sessions.check(task=task)
            try:
                return work(*arguments)
            finally:
                sessions.end_task(task=task)

        yield lambda work, *arguments: threads.submit(run, work, *arguments)


def use() -> int:
    """Return the session of a query, by the process id of its server process."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return int(cursor.fetchone()[0])


def pool() -> Any:
    return sessions._Shared.pools["default"]


def in_use() -> int:
    return len(pool()._taken)


@contextlib.contextmanager
def signals() -> Iterator[list[str]]:
    found: list[str] = []

    def receive(signal: str, fields: dict[str, Any]) -> None:
        found.append(signal)

    telemetry.register(receive)
    try:
        yield found
    finally:
        telemetry.unregister(receive)


def test_waiting_calls_hold_no_session(perform):
    waiting, go_on = threading.Semaphore(0), threading.Event()

    def step():
        before = use()
        with resilience.breaker("payments").guard():
            waiting.release()
            assert go_on.wait(30)
        return {before, use()}

    steps = [perform(step) for _ in range(32)]
    for _ in steps:
        assert waiting.acquire(timeout=30)
    assert in_use() == 0

    go_on.set()
    used = set().union(*(each.result(30) for each in steps))
    assert len(used) <= MOST
    assert pool().get_stats()["pool_size"] <= MOST


def test_a_session_within_a_transaction_stays_and_the_call_is_reported(perform):
    def step():
        with signals() as found, transaction.atomic():
            before = use()
            with resilience.breaker("nobody").guard():
                assert connection.connection is not None
            assert use() == before
        return found

    assert perform(step).result(30) == ["provider.called_in_transaction", "provider.called"]


def test_a_task_that_fails_gives_its_session_back(perform):
    def fail():
        use()
        raise ValueError("refused")

    for _ in range(3 * MOST):
        with pytest.raises(ValueError, match="refused"):
            perform(fail).result(30)

    assert in_use() == 0


def test_sessions_that_a_task_has_left_open_return_to_the_pool(perform):
    def leave_open():
        use()
        connection.connection = None  # as an exception that was raised within Django would

    for _ in range(3 * MOST):
        perform(leave_open).result(30)

    assert perform(use).result(30)
    assert in_use() == 0


def test_threads_that_come_and_go_leave_no_session_behind(started, task):
    served = []

    def end_without_a_word():
        sessions.check(task=task)
        served.append(use())

    for _ in range(3 * MOST):
        thread = threading.Thread(target=end_without_a_word)
        thread.start()
        thread.join()

    assert len(served) == 3 * MOST
    assert pool().get_stats()["pool_size"] <= MOST


def test_a_session_that_the_server_ended_is_replaced_without_an_error(perform):
    held = threading.Barrier(MOST)

    def hold():
        found = use()
        held.wait(30)
        return found

    ended = {each.result(30) for each in [perform(hold) for _ in range(MOST)]}
    assert len(ended) == MOST
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pid, 5000) FROM unnest(%s::int[]) pid", [list(ended)])

    assert perform(use).result(30) not in ended


def test_no_session_in_time_is_an_outage_that_names_its_reason(perform):
    holding, go_on = threading.Semaphore(0), threading.Event()

    def hold():
        use()
        holding.release()
        go_on.wait(30)

    holders = [perform(hold) for _ in range(MOST)]
    for _ in holders:
        assert holding.acquire(timeout=30)
    pool().timeout = 0.05
    with pytest.raises(OperationalError, match=f"all {MOST} of the process are in use") as refused:
        perform(use).result(30)
    go_on.set()

    assert is_server_error(refused.value)


def test_a_server_that_refuses_sessions_is_named(started, task, monkeypatch):
    monkeypatch.setattr(sessions, "WAIT", 1.0)

    def ask():
        wrapper = connections["default"]
        wrapper.settings_dict = wrapper.settings_dict | {"PORT": "1"}
        sessions.check(task=task)
        use()

    with ThreadPoolExecutor(1) as thread, pytest.raises(OperationalError, match="refused") as down:
        thread.submit(ask).result(30)

    assert is_server_error(down.value)


def test_sessions_are_checked_without_a_query(perform, monkeypatch):
    asked: list[Any] = []
    perform(use).result(30)
    monkeypatch.setattr(type(pool()), "check_connection", asked.append)
    perform(use).result(30)

    assert not asked


def test_statements_stay_prepared_in_sessions_that_were_given_back(perform):
    def prepared():
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_prepared_statements WHERE strpos(statement, 'sku') > 0")
            return cursor.fetchone()[0]

    def query():
        list(Product.objects.filter(sku="none"))

    for _ in range(7 * MOST):  # in turn, with another session
        perform(query).result(30)

    assert perform(prepared).result(30) == 1


def test_the_pool_is_for_tasks_only(perform):
    """The main loop must not wait for tasks, and the relay's listener sets something for its session."""
    perform(use).result(30)

    assert not given_back.is_pooled(connection)
    with ThreadPoolExecutor(1) as other:
        assert not other.submit(lambda: given_back.is_pooled(connections["default"])).result(30)


def test_a_pool_of_processes_keeps_its_sessions(task):
    sessions.begin(sender=worker("prefork", 4))
    sessions.check(task=task)
    before = use()
    with resilience.breaker("payments").guard():
        assert connection.connection is not None
    sessions.end_task(task=task)

    assert use() == before


def test_a_failure_of_the_server_ends_the_session(perform):
    def fail():
        before = use()
        given_back.end()
        return before

    before = perform(fail).result(30)
    eventually(lambda: before not in {perform(use).result(30) for _ in range(MOST)}, "another session")


def test_a_worker_that_may_open_more_sessions_than_are_left_says_so_at_its_start(monkeypatch, caplog):
    room = given_back.room()
    assert 0 <= room.open < room.allowed
    monkeypatch.setattr(given_back, "room", lambda: given_back.Room(allowed=97, open=90))
    sessions.begin(sender=worker("prefork", 4))
    assert not caplog.messages

    sessions.begin(sender=worker("prefork", 30))
    [message] = caplog.messages
    assert "may open 32 database sessions, but 90 of the 97" in message
    assert "max_connections" in message


def test_a_database_that_is_down_prevents_no_start(monkeypatch, caplog):
    def refuse():
        raise OperationalError

    monkeypatch.setattr(given_back, "room", refuse)
    sessions.begin(sender=worker("prefork", 4))

    assert not caplog.messages


@pytest.mark.parametrize(
    ("pool", "size", "has_relay", "most"),
    [("threads", 32, False, 9), ("threads", 2, False, 3), ("prefork", 4, False, 4), ("solo", 8, True, 3)],
)
def test_the_sessions_of_a_worker_are_known_before_it_starts(pool, size, has_relay, most):
    assert sessions.most_of(pool, size, has_relay=has_relay) == most


FOR_THE_SESSION = re.compile(
    r"\A\s*SET\s+(SESSION\s+)?(?!LOCAL|CONSTRAINTS|TRANSACTION)\w+\s*(=|TO)|\A\s*(LISTEN|PREPARE)\s"
    r"|pg_(try_)?advisory_(lock|unlock)|CREATE\s+(LOCAL\s+)?TEMP|set_config\([^)]*\bfalse|WITH HOLD",
)
HAVE_THEIR_OWN = {"outbox/relay/listener.py"}


def texts(tree: ast.AST) -> Iterator[str]:
    """All texts of a module, those with values in between as a whole."""
    nodes = list(ast.walk(tree))
    parts = {part for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in parts:
            yield node.value


def test_no_task_sets_anything_for_its_session():
    """The next task in it would be surprised."""
    found = {
        path.relative_to(ROOT).as_posix()
        for app in ("outbox", "orders", "notifications", "orderflow")
        for path in (ROOT / app).rglob("*.py")
        if "migrations" not in path.parts
        for text in texts(ast.parse(path.read_text()))
        if FOR_THE_SESSION.search(text)
    }

    assert found <= HAVE_THEIR_OWN
    assert "outbox/relay/listener.py" in found


def test_sessions_that_interrupted_threads_have_lost_are_replaced():
    """A hard time limit can interrupt a thread between getting a session and noting that it has it."""
    pool = SessionPool(
        kwargs={**connection.get_connection_params(), "autocommit": True}, min_size=1, max_size=2, timeout=0.1
    )
    pool.open()
    try:
        for _ in range(2):
            psycopg_pool.ConnectionPool.getconn(pool, 30)
        for _ in range(2):
            with pytest.raises(psycopg_pool.PoolTimeout, match="in use"):
                pool.getconn()

        kept = [pool.getconn(30), pool.getconn(30)]
        with pytest.raises(psycopg_pool.PoolTimeout):
            pool.getconn()
        for session in kept:
            pool.putconn(session)
    finally:
        pool.close()


def test_sessions_in_use_are_not_taken_for_lost():
    pool = SessionPool(
        kwargs={**connection.get_connection_params(), "autocommit": True}, min_size=1, max_size=2, timeout=0.1
    )
    pool.open()
    try:
        kept = [pool.getconn(30), pool.getconn(30)]
        for _ in range(3):
            with pytest.raises(psycopg_pool.PoolTimeout):
                pool.getconn()
        for session in kept:
            pool.putconn(session)
    finally:
        pool.close()
