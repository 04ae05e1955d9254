"""
The pages of the mailbox, as HTML.

Everything from outside passes through `escape`; the page's security policy allows only its own style. The HTML
of an e-mail is never part of a page: it is a separate document, in a frame without any permissions, under its
own policy. As `srcdoc` it would be subject to the page's policy and lose its styles.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from orderflow.sandbox.mailbox.sources import Reading

STYLE = (Path(__file__).with_name("mailbox.css")).read_text()
STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
PAGE_POLICY = (
    f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; img-src data:; frame-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'"
)
# An e-mail has inline styles. It may not run, load or send anything, and has an opaque origin.
EMAIL_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'"
ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Crect y='3' width='16' height='11' rx='2' fill='%231857b8'/%3E"
    "%3Cpath d='M1 5l7 5 7-5' fill='none' stroke='white' stroke-width='1.5'/%3E%3C/svg%3E"
)
REFRESH_SECONDS = 5
PREVIEW_LENGTH = 240


@dataclass(frozen=True, slots=True)
class View:
    """What the visitor requested."""

    query: str = ""
    show: int = 50
    refresh: bool = False

    def link(self, **changed: Any) -> str:
        facts = {"q": self.query, "show": self.show, "refresh": int(self.refresh)} | changed
        usual = {"q": "", "show": 50, "refresh": 0}
        asked = {name: value for name, value in facts.items() if value != usual[name]}
        return "/?" + urlencode(asked) if asked else "/"


def overview(view: View, emails: Reading, texts: Reading, pushes: Reading) -> str:
    """Show everything that was received, newest first, with one column per channel."""
    if view.refresh:
        refreshing = (
            f'Refreshes every {REFRESH_SECONDS} seconds. <a href="{escape(view.link(refresh=0))}">Stop</a>'
        )
    else:
        refreshing = f'<a href="{escape(view.link(refresh=1))}">Refresh every {REFRESH_SECONDS} seconds</a>'
    columns = "".join(
        (
            _column(view, "E-mails", emails, map(_email, emails.entries)),
            _column(view, "SMS", texts, map(_text_message, texts.entries)),
            _column(view, "Push notifications", pushes, map(_push, pushes.entries)),
        )
    )
    # Where the columns are stacked, the last one begins far down.
    jump = '<nav class="jump" aria-label="Channels"><a href="#e-mails">E-mails</a> <a href="#sms">SMS</a>'
    jump += ' <a href="#push">Push notifications</a></nav>'
    title = f"{view.query} · Sandbox mailbox" if view.query else "Sandbox mailbox"
    return _page(title, view, f"<p>{refreshing}</p>", f'{jump}<div class="columns">{columns}</div>')


def email(entry: dict[str, Any]) -> str:
    """Show one e-mail: rendered, as text, and its headers."""
    facts = "".join(
        f"<dt>{name}</dt><dd>{escape(value)}</dd>"
        for name, value in (
            ("From", entry["from"]),
            ("To", entry["to"]),
            ("Delivered to", ", ".join(entry["recipients"])),
            ("Received", f"{_moment(entry):%d %B %Y, %H:%M:%S} UTC"),
        )
    )
    parts = [
        f"<div><h2>{escape(entry['subject'] or '(no subject)')} {_again(entry['duplicates'])}</h2></div>",
        f'<dl class="facts">{facts}</dl>',
    ]
    if entry["html"] is not None:
        frame = f'<iframe sandbox src="{_address(entry)}/html" title="The e-mail as it looks"></iframe>'
        parts.append(f"<section><h3>As it looks</h3>{frame}</section>")
    if entry["text"] is not None:
        parts.append(f"<section><h3>Text</h3><pre>{escape(entry['text'])}</pre></section>")
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>'
        for name, value in entry["headers"]
    )
    parts.append(
        f"<details><summary>Headers</summary><table><tbody>{rows}</tbody></table></details>"
        f"<details><summary>Source</summary><pre>{escape(entry['raw'])}</pre></details>"
    )
    back = '<p><a href="/">All messages</a></p>'
    title = f"{entry['subject'] or '(no subject)'} · Sandbox mailbox"
    return _page(title, View(), back, f'<article class="message">{"".join(parts)}</article>')


def trouble(sentence: str) -> str:
    return _page("Sandbox mailbox", View(), '<p><a href="/">All messages</a></p>', _notice(sentence))


def _page(title: str, view: View, beside: str, content: str) -> str:
    refresh = f'<meta http-equiv="refresh" content="{REFRESH_SECONDS}">' if view.refresh else ""
    keep = '<input type="hidden" name="refresh" value="1">' if view.refresh else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{refresh}<title>{escape(title)}</title>
<link rel="icon" href="{ICON}">
<style>{STYLE}</style>
</head>
<body>
<a class="skip" href="#content">Skip to the messages</a>
<header class="top">
<h1><a href="/">Sandbox mailbox</a></h1>
{beside}
<form class="search" role="search" action="/" method="get">
<label for="q">Recipient or order number</label>
<input type="search" id="q" name="q" value="{escape(view.query)}">
{keep}<button>Find</button>
</form>
</header>
<main id="content">
{content}
</main>
</body>
</html>
"""


def _column(view: View, title: str, reading: Reading, entries: Iterable[str]) -> str:
    name = title.partition(" ")[0].lower()
    if reading.problem is not None:
        return (
            f'<section aria-labelledby="{name}"><h2 id="{name}">{title}</h2>'
            f"{_notice(f'The server is not reachable: {reading.problem}')}</section>"
        )
    shown = len(reading.entries)
    count = f"{shown} of {reading.total}" if shown < reading.total else f"{reading.total}"
    found = f'<ol class="entries">{"".join(entries)}</ol>'
    if not shown:
        about = f"Nothing mentions “{escape(view.query)}”." if view.query else "Nothing yet."
        found = f'<p class="empty">{about}</p>'
    elif shown < reading.total:
        more = escape(view.link(show=view.show * 4))
        found += f'<p><a href="{more}">Show more</a></p>'
    return (
        f'<section aria-labelledby="{name}"><h2 id="{name}">{title} <span class="count">{count}</span></h2>'
        f"{found}</section>"
    )


def _email(entry: dict[str, Any]) -> str:
    preview = " ".join((entry["text"] or "").split())[:PREVIEW_LENGTH]
    link = f'<a href="{_address(entry)}">{escape(entry["subject"] or "(no subject)")}</a>'
    return (
        f'<li class="card"><h3>{link} {_again(entry["duplicates"])}</h3>'
        f'<p class="quiet">{escape(", ".join(entry["recipients"]))} · {_time(entry)}</p>'
        f'<p class="preview">{escape(preview)}</p></li>'
    )


def _text_message(entry: dict[str, Any]) -> str:
    return (
        f'<li><p class="bubble">{escape(entry["body"])}</p>'
        f'<span class="quiet">{escape(entry["to"])} · {_time(entry)}</span></li>'
    )


def _push(entry: dict[str, Any]) -> str:
    data = " ".join(
        f'<span class="chip">{escape(name)}: {escape(value)}</span>' for name, value in entry["data"].items()
    )
    return (
        f'<li class="card push"><h3>{escape(str(entry["title"] or "(no title)"))}</h3>'
        f"<p>{escape(str(entry['body'] or ''))}</p>{f'<p>{data}</p>' if data else ''}"
        f'<p class="quiet">{escape(entry["token"])} · {_time(entry)}</p></li>'
    )


def _address(entry: dict[str, Any]) -> str:
    return f"/email/{int(entry['seq'])}"


def _again(duplicates: int) -> str:
    return f'<span class="chip again">received {duplicates + 1} times</span>' if duplicates else ""


def _notice(sentence: str) -> str:
    return f'<p class="notice" role="status">{escape(sentence)}</p>'


def _time(entry: dict[str, Any]) -> str:
    moment = _moment(entry)
    shown = f"{moment:%d %b, %H:%M:%S}"
    return f'<time datetime="{moment.isoformat()}" title="{moment:%d %B %Y, %H:%M:%S} UTC">{shown}</time>'


def _moment(entry: dict[str, Any]) -> dt.datetime:
    return dt.datetime.fromisoformat(entry["recorded_at"])
