"""The roles and passwords of the containers, on real servers: they allow the work and nothing else."""

from __future__ import annotations

import os
import stat
import subprocess
import sys

import psycopg
import pytest
import redis

from orderflow.stack import ports
from orderflow.stack.servers import binaries
from tests.processes import ROOT, environment, eventually, stack
from tests.stack.conftest import PASSWORDS, folder, new_postgres, place, run_server, stack_folders  # noqa: F401

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]

SHARED = ("secret_key", "broker_url", "redis_url")


@pytest.fixture
def secrets(tmp_path):
    """The secrets that make-secrets makes."""
    made = tmp_path / "secrets"
    subprocess.run([ROOT / "deploy/compose/make-secrets", made], check=True, stdout=subprocess.DEVNULL)
    return made


def test_secrets_are_made_once_and_only_their_owner_gets_to_them(secrets):
    before = {file.name: file.read_text() for file in secrets.iterdir()}
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    assert len({before[name] for name in before if name.endswith(("password", "_key")) and before[name]}) >= 6

    mine = {"stripe_api_key": "sk_live_mine\n"}
    (secrets / "stripe_api_key").write_text(mine["stripe_api_key"])
    subprocess.run([ROOT / "deploy/compose/make-secrets", secrets], check=True, stdout=subprocess.DEVNULL)
    assert {file.name: file.read_text() for file in secrets.iterdir()} == before | {
        "stripe_api_key": "sk_live_mine\n"
    }


def test_secrets_from_others_are_readable_in_the_containers(secrets):
    for name in ("tls_key", "fcm_credentials"):
        (secrets / name).unlink()
        (secrets / name).touch(mode=0o600)
    subprocess.run([ROOT / "deploy/compose/make-secrets", secrets], check=True, stdout=subprocess.DEVNULL)
    for file in secrets.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) & 0o444 == 0o444, file.name


@pytest.fixture
def servers(secrets, new_postgres, run_server, tmp_path):  # noqa: F811
    """PostgreSQL and Valkey as in the containers; the secrets contain their addresses."""
    run_server(new_postgres)
    superuser = {
        "PGHOST": "127.0.0.1",
        "PGPORT": str(new_postgres.port),
        "PGPASSWORD": PASSWORDS["postgres_superuser"],
        "PATH": f"{new_postgres.program.path.parent}:{os.environ['PATH']}",
    }
    subprocess.run(
        ["psql", "-q", "-U", "postgres", "-d", "postgres", "-c", "DROP DATABASE orderflow"],
        env=superuser,
        check=True,
    )
    script = ROOT / "deploy/postgres/roles.sh"
    subprocess.run([script], env=superuser | {"SECRETS": str(secrets)}, check=True, stdout=subprocess.DEVNULL)

    port = ports.choose()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path), "--save", ""]
    valkey = subprocess.Popen(
        [binaries.valkey().path, *options, "--aclfile", secrets / "valkey.acl"], stdout=subprocess.DEVNULL
    )
    for name in ("database_url", "owner_database_url", "broker_url", "redis_url"):
        file = secrets / name
        text = file.read_text().replace("@postgres:5432", f"@127.0.0.1:{new_postgres.port}")
        file.chmod(0o600)
        file.write_text(text.replace("@valkey:6379", f"@127.0.0.1:{port}"))
    eventually(lambda: answers(port), "Valkey answers")
    yield new_postgres.port, port
    valkey.terminate()
    valkey.wait(10)


def answers(port):
    try:
        return redis.Redis(port=port).ping()
    except redis.ConnectionError:
        return False


def files(secrets, database):
    """Return settings that are read from files, as in the containers, and nothing else from the environment."""
    named = {f"{name.upper()}_FILE": str(secrets / name) for name in SHARED}
    emptied = dict.fromkeys(("SECRET_KEY", "DATABASE_URL", "BROKER_URL", "REDIS_URL"), "")
    return emptied | named | {"DATABASE_URL_FILE": str(secrets / database)}


def manage(settings, *command):
    done = subprocess.run(
        [sys.executable, "manage.py", *command],
        env=environment() | settings,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_an_order_is_processed_by_a_role_that_owns_nothing(secrets, servers, world, tmp_path):
    application = files(secrets, "database_url")
    manage(files(secrets, "owner_database_url"), "migrate", "--noinput")
    with psycopg.connect((secrets / "owner_database_url").read_text().strip()) as owner:
        owner.execute(
            "INSERT INTO orders_product (sku, name, price_minor, currency, on_hand,"
            " reserved, shipped, received) VALUES ('MUG', 'Mug', 900, 'GBP', 5, 0, 0, 5)"
        )
    with stack(tmp_path) as started:
        for pool in ("orders", "email", "jobs"):
            started.worker(pool, pool, pool="solo", **application)
        started.relay(**application)
        started.beat(**application)
        manage(application, "place_order", "--sku", "MUG", "--email", "a@example.com")
        with psycopg.connect((secrets / "database_url").read_text().strip(), autocommit=True) as session:
            statuses = "SELECT array_agg(status) FROM orders_order"
            eventually(
                lambda: session.execute(statuses).fetchone()[0] == ["fulfilled"], "the order is fulfilled"
            )

    manage(application, "verify")
    manage(application, "outbox_status")
    manage(application, "shell", "-c", "from outbox import tasks; tasks.prune()")


def test_the_application_can_change_no_table_and_read_no_other_database(secrets, servers):
    with psycopg.connect((secrets / "owner_database_url").read_text().strip()) as owner:
        owner.execute("CREATE TABLE anything (id int)")
    with psycopg.connect((secrets / "database_url").read_text().strip(), autocommit=True) as session:
        session.execute("INSERT INTO anything VALUES (1)")
        for forbidden in (
            "CREATE TABLE other (id int)",
            "CREATE TEMPORARY TABLE other (id int)",
            "CREATE SCHEMA other",
            "ALTER TABLE anything ADD COLUMN more int",
            "DROP TABLE anything",
            "TRUNCATE anything",
            "CREATE ROLE other",
            "COPY anything TO PROGRAM 'true'",
            "SET ROLE orderflow_owner",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute(forbidden)
        roles = "SELECT rolname FROM pg_roles WHERE rolname LIKE 'orderflow%' AND (rolsuper OR rolcreaterole)"
        assert [row for row in session.execute(roles) if row[0] != "orderflow"] == []


@pytest.mark.slow
def test_without_the_password_the_broker_only_answers_the_health_check(secrets, servers):
    _, port = servers
    stranger = redis.Redis(port=port)
    assert stranger.ping()
    for command in ("GET secret", "LPUSH orders x", "INFO", "CONFIG GET dir"):
        with pytest.raises(redis.exceptions.NoPermissionError):
            stranger.execute_command(*command.split())
    ours = redis.Redis.from_url((secrets / "redis_url").read_text().strip())
    assert ours.set("breaker:x", 1)
    for command in ("CONFIG GET dir", "FLUSHALL", "SHUTDOWN", "ACL LIST", "KEYS *"):
        with pytest.raises(redis.exceptions.NoPermissionError):
            ours.execute_command(*command.split())
