"""Push notifications, sent with Google's own authentication."""

from __future__ import annotations

import pytest
from google.auth.exceptions import RefreshError
from google.oauth2 import service_account

from orderflow.sandbox.launch import Sandbox

from .clients import SEND_URL, ask, push_session, send_push

GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def error_code(answer: object) -> tuple[int, str, str]:
    error = answer.json()["error"]  # type: ignore[attr-defined]
    return error["code"], error["status"], error["details"][0]["errorCode"]


def test_a_notification_is_sent_and_recorded(push: Sandbox) -> None:
    answer = send_push(push, push_session(push), data={"order": "OF-1"})

    assert answer.status_code == 200
    name = answer.json()["name"]
    assert name.startswith("projects/shop/messages/")
    [entry] = push.ledger()
    assert (entry["kind"], entry["name"], entry["token"], entry["title"], entry["data"]) == (
        "push",
        name,
        "device-1",
        "Shipped",
        {"order": "OF-1"},
    )


def test_one_access_token_serves_many_notifications(push: Sandbox) -> None:
    session = push_session(push)
    for _ in range(3):
        send_push(push, session)

    assert [call["path"] for call in push.calls()].count("/token") == 1


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"token": "unregistered-1"}, (404, "NOT_FOUND", "UNREGISTERED")),
        ({"token": "invalid-1"}, (400, "INVALID_ARGUMENT", "INVALID_ARGUMENT")),
        ({"token": ""}, (400, "INVALID_ARGUMENT", "INVALID_ARGUMENT")),
        ({"data": {"order": 1}}, (400, "INVALID_ARGUMENT", "INVALID_ARGUMENT")),
        ({"data": {"text": "x" * 5000}}, (400, "INVALID_ARGUMENT", "INVALID_ARGUMENT")),
        ({"notification": "Shipped"}, (400, "INVALID_ARGUMENT", "INVALID_ARGUMENT")),
    ],
)
def test_what_fcm_refuses_is_refused_in_its_format(
    push: Sandbox, message: dict[str, object], expected: tuple[int, str, str]
) -> None:
    answer = send_push(push, push_session(push), **message)

    assert (answer.status_code, error_code(answer)) == (expected[0], expected)
    assert push.ledger() == []


@pytest.mark.parametrize(
    ("fault", "expected", "retry_after"),
    [
        ({"fault": "rate_limit", "retry_after": 9}, (429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"), "9"),
        ({"fault": "error"}, (503, "UNAVAILABLE", "UNAVAILABLE"), None),
        ({"fault": "error", "status": 500}, (500, "INTERNAL", "INTERNAL"), None),
    ],
)
def test_failures_have_the_format_of_fcm(
    push: Sandbox, fault: dict[str, object], expected: tuple[int, str, str], retry_after: str | None
) -> None:
    session = push_session(push)
    with push.failing(**fault, match="messages:send"):
        answer = send_push(push, session)

    assert (error_code(answer), answer.headers.get("Retry-After")) == (expected, retry_after)
    assert push.ledger() == []


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer made-up"}, {"Authorization": "Basic eDp5"}])
def test_sending_requires_an_access_token(push: Sandbox, headers: dict[str, str]) -> None:
    answer = ask(push, "POST", SEND_URL, {"message": {"token": "device-1"}}, headers)

    assert (answer.status, answer.json["error"]["status"]) == (401, "UNAUTHENTICATED")


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ("grant_type=password", "unsupported_grant_type"),
        (f"grant_type={GRANT}&assertion=a.b", "invalid_grant"),
        (f"grant_type={GRANT}&assertion=a.e30.c", "invalid_grant"),
        (f"grant_type={GRANT}&assertion=a.%21.c", "invalid_grant"),
        (f"grant_type={GRANT}", "invalid_grant"),
    ],
)
def test_access_tokens_are_issued_only_for_assertions(push: Sandbox, form: str, error: str) -> None:
    answer = ask(push, "POST", "/token", form, FORM)

    assert (answer.status, answer.json["error"]) == (400, error)


def test_googles_library_reports_a_refused_assertion(push: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_account, "_DEFAULT_TOKEN_LIFETIME_SECS", -3600)

    with pytest.raises(RefreshError, match="exp"):
        send_push(push, push_session(push))


def test_a_message_may_be_validated_without_being_sent(push: Sandbox) -> None:
    session = push_session(push)
    body = {"validate_only": True, "message": {"token": "device-1"}}

    assert session.post(f"{push.url}{SEND_URL}", json=body, timeout=5).status_code == 200
    assert push.ledger() == []
