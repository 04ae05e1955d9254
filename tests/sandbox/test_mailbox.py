"""The page that shows what customers received. No message can harm its reader."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from orderflow.sandbox.launch import Sandbox, World

from .clients import SENDER, Answer, ask, email, push_session, send_email, send_push, twilio_client

HOSTILE = "\"><script>alert('x')</script><img src=x onerror=alert(1)>"


class Page(HTMLParser):
    """What a browser would find on a page: elements with their attributes, and the text."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(answer.body.decode())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def look(world: World, path: str = "/") -> Page:
    answer = ask(world.mailbox, "GET", path)
    assert answer.status == 200
    return Page(answer)


def send_one_of_each(world: World, about: str = "Order OF-1 is on its way") -> None:
    send_email(world.smtp, email(Subject=about, **{"Message-ID": f"<{hash(about)}@example.com>"}))
    twilio_client(world.sms).messages.create(to="+447700900001", from_=SENDER, body=about)
    notification = {"title": about, "body": about}
    send_push(world.push, push_session(world.push), notification=notification, data={"order": about})


def test_an_empty_mailbox_is_shown_as_empty(world: World) -> None:
    assert look(world).text.count("Nothing yet.") == 3


def test_everything_received_is_shown_and_counted(world: World) -> None:
    send_one_of_each(world)
    send_email(world.smtp, email(**{"Message-ID": "<twice@example.com>", "Subject": "Twice"}))
    send_email(world.smtp, email(**{"Message-ID": "<twice@example.com>", "Subject": "Twice"}))

    page = look(world)

    assert page.text.count("Order OF-1 is on its way") == 5
    assert "received 2 times" in page.text
    assert page.text.index("Twice") < page.text.index("Order OF-1")
    assert ask(world.mailbox, "GET", "/api/counts").json == {"emails": 2, "sms": 1, "pushes": 1}


def test_the_mailbox_can_be_searched_by_recipient_or_order_number(world: World) -> None:
    send_one_of_each(world, "Order OF-1 is on its way")
    send_one_of_each(world, "Order OF-2 was cancelled")
    send_email(world.smtp, email(To="charles@example.com", Subject="For Charles"))

    page = look(world, "/?q=of-2")
    assert ("Order OF-2" in page.text, "Order OF-1" in page.text) == (True, False)
    assert page.all("input")[0]["value"] == "of-2"
    assert ask(world.mailbox, "GET", "/api/counts?q=OF-2").json == {"emails": 1, "sms": 1, "pushes": 1}

    page = look(world, "/?q=charles%40example.com")
    assert ("For Charles" in page.text, "Order OF-1" in page.text) == (True, False)
    assert "Nothing mentions “charles@example.com”." in page.text


def test_what_was_received_is_listed_by_the_senders_ids(world: World) -> None:
    send_one_of_each(world, "Order OF-1 is on its way")

    for kind, server, name in (("email", world.smtp, "message_id"), ("sms", world.sms, "sid")):
        expected = {"ids": [entry[name] for entry in server.ledger(kind=kind)], "next_after": None}
        assert ask(world.mailbox, "GET", f"/api/received?kind={kind}").json == expected
    assert len(ask(world.mailbox, "GET", "/api/received?kind=push").json["ids"]) == 1
    assert ask(world.mailbox, "GET", "/api/received?kind=push&after=999999999").json == {
        "ids": [],
        "next_after": None,
    }
    assert ask(world.mailbox, "GET", "/api/received?kind=letter").status == 400
    assert ask(world.mailbox, "GET", "/api/received?kind=push&after=x").status == 400


def test_a_long_mailbox_shows_the_newest_and_offers_more(world: World) -> None:
    client = twilio_client(world.sms)
    for number in range(55):
        client.messages.create(to="+447700900001", from_=SENDER, body=f"message {number}.")

    page = look(world)
    assert ("50 of 55" in page.text, "message 54." in page.text, "message 4." in page.text) == (
        True,
        True,
        False,
    )
    [more] = [link["href"] for link in page.all("a") if "show=" in (link["href"] or "")]
    assert "message 4." in look(world, more or "").text


def test_an_email_is_shown_rendered_as_text_and_with_its_headers(world: World) -> None:
    send_email(world.smtp, email())
    [link] = [link["href"] for link in look(world).all("a") if (link["href"] or "").startswith("/email/")]

    page = look(world, link or "")

    [frame] = page.all("iframe")
    assert frame["sandbox"] is None
    assert "sandbox" in frame
    assert "Hello Ada, your parcel costs £ 0." in page.text
    assert "Message-ID" in page.text
    inside = ask(world.mailbox, "GET", frame["src"] or "")
    assert b"Hello <b>Ada</b>" in inside.body
    policy = inside.headers["Content-Security-Policy"]
    assert policy.startswith("sandbox; default-src 'none';")
    assert "script" not in policy


@pytest.mark.parametrize("path", ["/", "/?q=%22%3E%3Cscript%3Ealert%281%29%3C%2Fscript%3E", "email"])
def test_nothing_hostile_gets_into_a_page(world: World, path: str) -> None:
    send_one_of_each(world, HOSTILE)
    send_email(
        world.smtp, email(**{"Message-ID": "<hostile@example.com>", HOSTILE.replace("=", "").split()[0]: "x"})
    )
    if path == "email":
        path = f"/email/{world.smtp.ledger()[0]['seq']}"

    page = look(world, path)

    assert {tag for tag, _ in page.elements} & {"script", "img"} == set()
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert "<script>" in page.text


@pytest.mark.parametrize("path", ["/", "/nothing", "/email/1"])
def test_the_policy_allows_exactly_the_style_of_the_page(world: World, path: str) -> None:
    send_email(world.smtp, email())

    answer = ask(world.mailbox, "GET", path)

    [style] = re.findall(r"<style>(.*?)</style>", answer.body.decode(), re.DOTALL)
    expected = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = answer.headers["Content-Security-Policy"]
    assert f"style-src 'sha256-{expected}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert not [attributes for _, attributes in Page(answer).elements if "style" in attributes]


def test_refreshing_is_off_by_default_and_can_be_stopped(world: World) -> None:
    page = look(world, "/?q=OF-1")
    assert [meta for meta in page.all("meta") if "http-equiv" in meta] == []
    [start] = [link["href"] or "" for link in page.all("a") if "refresh=1" in (link["href"] or "")]

    page = look(world, start)
    assert [meta["http-equiv"] for meta in page.all("meta") if "http-equiv" in meta] == ["refresh"]
    assert "/?q=OF-1" in [link["href"] for link in page.all("a")]


def test_pages_are_accessible_to_screen_readers(world: World) -> None:
    send_one_of_each(world)
    send_email(world.smtp, email())

    for path in ("/", f"/email/{world.smtp.ledger()[0]['seq']}"):
        page = look(world, path)
        names = [tag for tag, _ in page.elements]
        assert page.all("html")[0]["lang"] == "en"
        assert {"header", "main", "title"} <= set(names)
        assert names.count("h1") == 1
        labels = {label["for"] for label in page.all("label")}
        assert {field["id"] for field in page.all("input") if field["type"] != "hidden"} == labels
        assert all(frame.get("title") for frame in page.all("iframe"))
        ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
        assert len(ids) == len(set(ids))
        assert {
            section["aria-labelledby"] for section in page.all("section") if "aria-labelledby" in section
        } <= set(ids)


def test_a_server_that_is_not_reachable_is_named_and_the_others_are_shown(world: World) -> None:
    send_one_of_each(world)
    world.sms.stop()
    try:
        page = look(world)
        assert page.text.count("Order OF-1 is on its way") == 4
        assert "The server is not reachable" in page.text
        assert ask(world.mailbox, "GET", "/api/counts").json == {"emails": 1, "sms": None, "pushes": 1}
    finally:
        world.sms.start()


@pytest.mark.parametrize("path", ["/email/999999", "/email/x", "/email/999999/html", "/nothing"])
def test_unknown_pages_are_not_found(world: World, path: str) -> None:
    answer = ask(world.mailbox, "GET", path)

    assert answer.status == 404
    assert "There is no" in Page(answer).text


def test_the_mailbox_is_a_server_like_the_others(world: World) -> None:
    mailbox: Sandbox = world.mailbox

    assert ask(mailbox, "GET", "/_health").json["name"] == "mailbox"
    assert ask(mailbox, "POST", "/", {}).status == 405
