"""
Records the durable effects and crash points of a process, in the order in which they happen.

A durable effect is a commit that changed rows, a message accepted or removed by a broker, or a call that an
outside system may have acted on. The functions of the project that caused it are recorded as well.
"""

from __future__ import annotations

import contextlib
import inspect
import re
import smtplib
import sys
from dataclasses import dataclass, field

import kombu.message
import kombu.messaging
import requests.adapters
from django.conf import settings
from django.db import connection
from django.db.backends.base.base import BaseDatabaseWrapper

from outbox import crash_points, testing
from outbox.broker import message_templates, transports
from outbox.relay import claims, probes

WRITE = re.compile(r"\b(INSERT INTO|UPDATE|DELETE FROM)\b", re.IGNORECASE)
LOCK = re.compile(r"FOR (NO KEY )?UPDATE", re.IGNORECASE)
ACKNOWLEDGE = "acknowledge"
SILENT_PATHS = ("/token",)
"""Calls that change nothing: fetching an access token."""


@dataclass
class Watch:
    """The record: `("effect", what)` and `("point", name)`, and the functions that wrote something."""

    seen: list[tuple[str, str]] = field(default_factory=list)
    writers: set[str] = field(default_factory=set)
    dirty: str = ""

    def effect(self, what):
        self.seen.append(("effect", what))
        self.record_writers()

    def record_writers(self):
        frame = sys._getframe(1)
        while frame is not None:
            module = frame.f_globals.get("__name__", "")
            if module.split(".")[0] in settings.OUTBOX_PROJECT_PACKAGES:
                self.writers.add(f"{module}.{frame.f_code.co_qualname}")
            frame = frame.f_back

    @property
    def points(self):
        return [name for kind, name in self.seen if kind == "point"]

    @property
    def gaps(self):
        """Pairs of effects without a point between them. After an acknowledgement nothing is in progress."""
        pairs = zip(self.seen, self.seen[1:], strict=False)
        return [
            (one[1], next_one[1])
            for one, next_one in pairs
            if one[0] == next_one[0] == "effect" and one[1] != ACKNOWLEDGE
        ]

    def on_statement(self, execute, sql, params, many, context):
        result = execute(sql, params, many, context)
        if WRITE.search(LOCK.sub("", sql)) and rows_changed(sql, context["cursor"]) and not passing_time():
            self.record_writers()
            what = " ".join(sql.split())[:60]
            if context["connection"].in_atomic_block:
                self.dirty = what
            else:
                self.effect(what)
        return result


def rows_changed(sql, cursor):
    """How many rows a statement has changed. The query for messages returns a row even if it finds none."""
    if sql != claims.CLAIM:
        return cursor.rowcount
    claimed = [row for row in cursor.fetchall() if any(row[1:])]
    cursor.scroll(0, mode="absolute")
    return len(claimed)


def passing_time():
    """Whether the test itself writes, to let time pass."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code is not testing._execute.__code__:
        frame = frame.f_back
    return frame is not None


@contextlib.contextmanager
def watching(monkeypatch):
    """Watch this process inside the block."""
    watch = Watch()
    commit, rollback = BaseDatabaseWrapper.commit, BaseDatabaseWrapper.rollback

    def committing(self):
        commit(self)
        if watch.dirty:
            what, watch.dirty = watch.dirty, ""
            watch.effect(f"commit: {what}")

    def rolling_back(self):
        watch.dirty = ""
        rollback(self)

    def then(method, describe):
        def wrapped(*args, **kwargs):
            try:
                return method(*args, **kwargs)
            finally:
                if what := describe(*args, **kwargs):
                    watch.effect(what)

        return wrapped

    def published(producer, *_, **options):
        if isinstance(producer, message_templates.Recorder):
            return ""
        # A slow test sends a probe behind its messages. One that is lost is as good as one that was not sent.
        is_probe = (options.get("headers") or {}).get("task") == probes.PROBE
        return "" if is_probe else f"publish to {options['routing_key']}"

    def posted(adapter, request, **_):
        acted = request.method == "POST" and not request.path_url.endswith(SILENT_PATHS)
        return f"POST {request.path_url}" if acted else ""

    with monkeypatch.context() as patch, connection.execute_wrapper(watch.on_statement):
        patch.setattr(BaseDatabaseWrapper, "commit", committing)
        patch.setattr(BaseDatabaseWrapper, "rollback", rolling_back)
        for owner, name, describe in (
            (kombu.messaging.Producer, "publish", published),
            (transports.ToRedis, "put", lambda *_, **__: "publish a batch"),
            (kombu.message.Message, "ack", lambda *_, **__: ACKNOWLEDGE),
            (requests.adapters.HTTPAdapter, "send", posted),
            (smtplib.SMTP, "sendmail", lambda *_, **__: "an e-mail"),
        ):
            wrapped = then(getattr(owner, name), describe)
            static = isinstance(inspect.getattr_static(owner, name), staticmethod)
            patch.setattr(owner, name, staticmethod(wrapped) if static else wrapped)
        crash_points.arm(lambda name: watch.seen.append(("point", name)))
        try:
            yield watch
        finally:
            crash_points.disarm()
