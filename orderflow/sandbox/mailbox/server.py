"""The mailbox: a page with the e-mails, text messages and push notifications as customers see them."""

from __future__ import annotations

import argparse
from typing import Any

from orderflow.sandbox.control import Control
from orderflow.sandbox.ledger import Ledger
from orderflow.sandbox.mailbox import pages
from orderflow.sandbox.mailbox.sources import Source, newest_of
from orderflow.sandbox.messages import Answer, Request, json_answer
from orderflow.sandbox.provider import Provider, route

SHOWN, MOST_SHOWN = 50, 3_200
LONGEST_QUERY = 200
LISTED = 500
IDS = {"email": "message_id", "sms": "sid", "push": "name"}


def create(arguments: argparse.Namespace, control: Control) -> Mailbox:
    return Mailbox(
        control.ledger,
        smtp_url=arguments.smtp_url,
        sms_url=arguments.sms_url,
        push_url=arguments.push_url,
        password=arguments.password,
    )


class Mailbox(Provider):
    """
    Shows the ledgers of three other servers.

    Args:
        smtp_url, sms_url, push_url: the HTTP addresses of those servers.
        password: their password.
    """

    name = "mailbox"
    for_people = True

    def __init__(self, ledger: Ledger, *, smtp_url: str, sms_url: str, push_url: str, password: str) -> None:
        super().__init__(ledger)
        self._emails = Source(smtp_url, "email", password)
        self._sources = [self._emails, Source(sms_url, "sms", password), Source(push_url, "push", password)]
        self.routes = [
            route("GET", "/", self.overview),
            route("GET", "/email/{seq}", self.email),
            route("GET", "/email/{seq}/html", self.email_html),
            route("GET", "/api/counts", self.counts),
            route("GET", "/api/received", self.received),
        ]

    def failure(self, status: int, message: str) -> Answer:
        return _html(status, pages.trouble(message))

    def overview(self, request: Request) -> Answer:
        show = request.query.get("show", "")
        view = pages.View(
            query=_query(request),
            show=min(max(int(show), 1), MOST_SHOWN) if show.isdecimal() and len(show) < 9 else SHOWN,
            refresh=request.query.get("refresh") == "1",
        )
        return _html(200, pages.overview(view, *newest_of(self._sources, view.show, mentioning=view.query)))

    def email(self, request: Request) -> Answer:
        entry = self._entry(request)
        return entry if isinstance(entry, Answer) else _html(200, pages.email(entry))

    def email_html(self, request: Request) -> Answer:
        entry = self._entry(request)
        if isinstance(entry, Answer):
            return entry
        return _html(200, entry["html"] or "", policy=pages.EMAIL_POLICY)

    def counts(self, request: Request) -> Answer:
        """Count what was received; null for a server that does not respond."""
        readings = newest_of(self._sources, 0, mentioning=_query(request))
        numbers = (None if reading.problem else reading.total for reading in readings)
        return json_answer(200, dict(zip(("emails", "sms", "pushes"), numbers, strict=True)))

    def received(self, request: Request) -> Answer:
        """List what one server received by the senders' ids, oldest first: `?kind=email&after=SEQ`."""
        kind, after = request.query.get("kind", ""), request.query.get("after", "0")
        source = next((source for source in self._sources if source.kind == kind), None)
        if source is None or not (after.isdecimal() and len(after) < 19):
            return json_answer(
                400, {"error": f"Say which: ?kind={'|'.join(IDS)}, and a place to go on &after."}
            )
        reading = source.after(int(after), LISTED)
        if reading.problem is not None:
            return json_answer(502, {"error": f"The server is not reachable: {reading.problem}"})
        more = len(reading.entries) == LISTED
        return json_answer(
            200,
            {
                "ids": [entry[IDS[kind]] for entry in reading.entries],
                "next_after": reading.entries[-1]["seq"] if more else None,
            },
        )

    def _entry(self, request: Request) -> dict[str, Any] | Answer:
        seq = request.path_values["seq"]
        if not (seq.isdecimal() and len(seq) < 19):
            return self.failure(404, "There is no such e-mail.")
        reading = self._emails.one(int(seq))
        if reading.problem is not None:
            return self.failure(502, f"The mail server is not reachable: {reading.problem}")
        if not reading.entries or reading.entries[0]["seq"] != int(seq):
            return self.failure(404, "There is no such e-mail; it may have been removed.")
        return reading.entries[0]


def _query(request: Request) -> str:
    return request.query.get("q", "").strip()[:LONGEST_QUERY]


def _html(status: int, page: str, *, policy: str = pages.PAGE_POLICY) -> Answer:
    headers = {
        "Content-Security-Policy": policy,
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    return Answer(status, page.encode(), "text/html; charset=utf-8", headers)
