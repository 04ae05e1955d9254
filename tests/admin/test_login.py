"""Staff logins: limited before a password is hashed, logged without names, and ended after a time."""

from __future__ import annotations

import ipaddress
import os
import threading
import time
import uuid

import pytest
from django.contrib.auth import authenticate, hashers
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import connections
from django.test import Client
from django.urls import reverse
from django_otp.oath import totp
from django_otp.plugins.otp_static.models import StaticToken
from django_otp.plugins.otp_totp.models import TOTPDevice

from orderflow.login import hashing, limits, middleware
from orders.api import limits as api_limits
from tests.admin.conftest import PASSWORD, staff

LOGIN = "/admin/login/"


@pytest.fixture(autouse=True)
def own_counts(settings):
    """Counters for this test only, in a Redis of its own, or without a Redis that responds."""
    redis_url, settings.REDIS_URL = settings.REDIS_URL, ""
    settings.LOGIN_RATE_PER_ADDRESS, settings.LOGIN_RATE_PER_USER = "3/minute", "5/minute"
    yield redis_url
    api_limits.forget()
    limits.forget()


@pytest.fixture
def hashed(monkeypatch):
    """The passwords that were hashed."""
    found = []
    original = hashers.MD5PasswordHasher.encode

    def encode(self, password, salt, *rest):
        found.append(password)
        return original(self, password, salt, *rest)

    monkeypatch.setattr(hashers.MD5PasswordHasher, "encode", encode)
    return found


def log_in(name="root", password=PASSWORD, *, address="192.0.2.1", client=None, **more):
    fields = {"username": name, "password": password, **more}
    return (client or Client()).post(LOGIN, fields, REMOTE_ADDR=address)


def test_the_login_limit_of_an_address_covers_all_names(db, hashed):
    staff("root")
    hashed.clear()
    assert [log_in(f"name-{number}", "wrong").status_code for number in range(3)] == [200] * 3
    tried = len(hashed)
    refused = log_in()

    assert refused.status_code == 429
    assert 1 <= int(refused["Retry-After"]) <= 60
    assert "Too many logins" in refused.text
    assert len(hashed) == tried  # refused before hashing, although name and password were correct
    assert log_in(address="192.0.2.2").status_code == 302


def test_the_login_limit_of_a_user_covers_all_addresses(db, hashed):
    staff("root")
    spellings = ["root", "ROOT", " root ", "\uff52oot", "root"]  # the fourth has a full-width letter
    for number, name in enumerate(spellings):
        assert log_in(name, "wrong", address=f"192.0.2.{number}").status_code == 200
    hashed.clear()

    assert log_in(address="198.51.100.1").status_code == 429
    assert log_in("nobody-there", address="198.51.100.1").status_code == 200
    assert PASSWORD not in hashed[:-1]


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
    ],
)
def test_addresses_of_one_owner_count_together(one, other, together):
    assert (limits.network_of(one) == limits.network_of(other)) is together


def test_without_redis_each_process_counts_for_itself(db, settings, stated):
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    staff("root")
    answers = [log_in(password="wrong").status_code for _ in range(4)]

    assert answers == [200, 200, 200, 429]
    assert "api.limits_unavailable" in [signal for signal, _ in stated]


def test_with_redis_all_processes_share_their_counts(db, settings, own_counts):
    settings.REDIS_URL = own_counts
    address = str(ipaddress.IPv6Address(uuid.uuid4().int))  # an address without counts
    for _ in range(3):
        assert log_in(str(uuid.uuid4()), address=address).status_code == 200
        api_limits.forget()  # as in another process
        limits.forget()

    assert log_in(str(uuid.uuid4()), address=address).status_code == 429


def test_concurrent_logins_leave_threads_for_orders(db, settings, monkeypatch):
    settings.LOGIN_RATE_PER_ADDRESS = settings.LOGIN_RATE_PER_USER = "100/minute"
    release, waiting = threading.Event(), threading.Semaphore(0)

    def slow(self, *_, **__):
        waiting.release()
        release.wait(30)

    monkeypatch.setattr("django.contrib.auth.backends.ModelBackend.authenticate", slow)

    def log_in_elsewhere():
        log_in()
        connections.close_all()

    held = [threading.Thread(target=log_in_elsewhere) for _ in range(limits.MOST_AT_ONCE)]
    for thread in held:
        thread.start()
        assert waiting.acquire(timeout=30)
    began = time.monotonic()
    refused = [log_in() for _ in range(6)]
    took = time.monotonic() - began
    release.set()
    for thread in held:
        thread.join(30)

    assert [answer.status_code for answer in refused] == [429] * 6
    assert {answer["Retry-After"] for answer in refused} == {"1"}
    assert took < 20  # nothing waited for the requests that hash
    assert log_in().status_code == 200  # the slots are free again


def test_one_password_is_hashed_at_a_time_by_a_thread_that_yields(settings, monkeypatch):
    settings.PASSWORD_HASHERS = ["orderflow.login.hashing.QuietPBKDF2PasswordHasher"]
    at_work, most, lock, niceness = [0], [0], threading.Lock(), set()
    original = hashers.PBKDF2PasswordHasher.encode

    def encode(self, password, salt, iterations=None):
        with lock:
            at_work[0] += 1
            most[0] = max(most[0], at_work[0])
        niceness.add(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        try:
            return original(self, password, salt, 20_000)
        finally:
            with lock:
                at_work[0] -= 1

    monkeypatch.setattr(hashers.PBKDF2PasswordHasher, "encode", encode)
    hashing._lane.cache_clear()
    threads = [threading.Thread(target=hashers.make_password, args=("secret",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert most == [1]
    assert niceness == {hashing.NICENESS}


@pytest.mark.slow
def test_hashes_are_djangos_own(settings):
    ours = ["orderflow.login.hashing.QuietPBKDF2PasswordHasher"]
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.PBKDF2PasswordHasher"]
    theirs = hashers.make_password("secret")
    settings.PASSWORD_HASHERS = ours

    assert hashers.check_password("secret", theirs)
    assert not hashers.check_password("Secret", theirs)
    assert hashers.make_password("secret").startswith("pbkdf2_sha256$")


def test_logins_failures_and_logouts_are_logged_without_names(db, stated):
    user = staff("root")
    client = Client()
    log_in("my-Real-Passw0rd!", "x")
    log_in("root", "wrong-Passw0rd!")
    log_in(client=client)
    client.post(reverse("admin:logout"))

    signals = {signal: fields for signal, fields in stated if signal.startswith("user.")}
    assert list(signals) == ["user.login_failed", "user.logged_in", "user.logged_out"]
    unknown, known = [fields for signal, fields in stated if signal == "user.login_failed"]
    assert (unknown["user_id"], known["user_id"], known["client"]) == (None, user.pk, "192.0.2.1")
    assert signals["user.logged_in"] == {"user_id": user.pk, "client": "192.0.2.1"}
    assert "Passw0rd" not in repr(stated)
    assert "'root'" not in repr(stated)


def test_logins_outside_the_admin_are_counted_too(db):
    staff("root")
    for _ in range(5):
        authenticate(None, username="root", password="wrong")
    with pytest.raises(limits.TooManyLogins):
        authenticate(None, username="root", password=PASSWORD)


@pytest.mark.parametrize("name", ["\x00", "root\x00", "\ud800", "\u202eroot", "x" * 100_000, "", "'; --"])
def test_an_impossible_name_fails_like_any_wrong_one(db, name):
    assert authenticate(None, username=name, password="wrong") is None
    assert log_in(name.replace("\ud800", "?"), "wrong").status_code == 200


@pytest.mark.parametrize(
    ("began", "seen", "stays"),
    [(0, 0, True), (0, -29 * 60, True), (0, -31 * 60, False), (-11.9, -100, True), (-12.1, -1, False)],
)
def test_sessions_end_when_idle_and_after_a_day_of_work(db, stated, began, seen, stays):
    client, now = Client(), int(time.time())
    client.force_login(staff("root"))
    session = client.session
    session[middleware.BEGAN], session[middleware.SEEN] = now + int(began * 3600), now + seen
    session.save()

    assert (client.get("/admin/").status_code == 200) is stays
    assert ("session.expired" in [signal for signal, _ in stated]) is not stays
    assert (client.get("/admin/").status_code == 200) is stays


def test_use_keeps_a_session_alive_and_a_session_without_age_has_ended(db):
    client = Client()
    client.force_login(staff("root"))
    session = client.session
    session[middleware.SEEN] -= 1000
    session.save()
    client.get("/admin/")
    assert time.time() - client.session[middleware.SEEN] < 100

    session = client.session
    del session[middleware.BEGAN]
    session.save()
    assert client.get("/admin/").status_code == 302


@pytest.mark.parametrize(("password", "taken"), [("elevenchars", False), ("twelve-chars", True)])
def test_passwords_have_twelve_characters(password, taken):
    if taken:
        validate_password(password)
    else:
        with pytest.raises(ValidationError, match="at least 12"):
            validate_password(password)


@pytest.fixture
def enrolled(db, settings, capsys):
    settings.ADMIN_SECOND_FACTOR = True
    staff("root")
    call_command("second_factor", "root")
    return capsys.readouterr().out


def code_of_app():
    device = TOTPDevice.objects.get()
    TOTPDevice.objects.update(last_t=-1, throttling_failure_count=0, throttling_failure_timestamp=None)
    return f"{totp(device.bin_key):06d}"


def test_with_a_second_factor_the_password_alone_opens_nothing(enrolled, stated):
    assert enrolled.count("otpauth://totp/") == 1
    client = Client()

    assert log_in(client=client).status_code == 200
    assert log_in(client=client, otp_token="000000").status_code == 200
    assert client.get("/admin/").status_code == 302
    assert [signal for signal, _ in stated if signal == "user.logged_in"] == []
    assert "user.second_factor_failed" in [signal for signal, _ in stated]
    code = code_of_app()
    assert log_in(client=client, otp_token=code).status_code == 302
    assert client.get("/admin/").status_code == 200
    assert client.get("/api/v1/docs").status_code == 200


def test_a_wrong_password_and_a_wrong_code_give_the_same_error(enrolled):
    wrong_code = log_in(otp_token="000000").context["form"].errors
    wrong_password = log_in(password="wrong", otp_token="000000").context["form"].errors

    assert wrong_code == wrong_password


def test_codes_are_valid_once(enrolled):
    paper = StaticToken.objects.values_list("token", flat=True)[0]
    assert paper in enrolled
    code = code_of_app()

    assert log_in(otp_token=code, address="192.0.2.1").status_code == 302
    assert log_in(otp_token=code, address="192.0.2.2").status_code == 200
    assert log_in(otp_token=paper, address="192.0.2.3").status_code == 302
    assert log_in(otp_token=paper, address="192.0.2.4").status_code == 200


def test_existing_sessions_need_the_code_once_it_is_required(db, settings):
    client = Client()
    client.force_login(staff("root"))
    assert client.get("/admin/").status_code == 200
    settings.ADMIN_SECOND_FACTOR = True

    assert client.get("/admin/").status_code == 302
    assert client.get("/api/v1/docs").status_code == 302
    assert client.get("/healthz").status_code == 401
    assert "id_otp_token" in client.get(LOGIN).text


def test_a_second_factor_is_replaced_and_removed_by_the_command_only(enrolled, capsys):
    before = TOTPDevice.objects.get().key
    call_command("second_factor", "root")
    assert TOTPDevice.objects.get().key != before
    call_command("second_factor", "root", "--remove")
    assert not TOTPDevice.objects.exists()
    assert "no second factor" in capsys.readouterr().out


def test_the_admin_has_no_page_for_devices(db):
    client = Client()
    client.force_login(staff("root"))

    for window in ("otp_totp/totpdevice", "otp_static/staticdevice"):
        assert client.get(f"/admin/{window}/").status_code == 404
    assert "otp" not in client.get("/admin/").text
