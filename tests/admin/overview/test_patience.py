"""A server that hangs delays a page by a moment, and by nothing once that is known."""

from __future__ import annotations

import threading
import time

import pytest

from orderflow.ops.overview import patience
from orderflow.ops.overview.patience import Question
from tests.processes import eventually


class Server:
    """Counts questions, and answers when it is let."""

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.questions = 0
        self.error: Exception | None = None

    def ask(self) -> int:
        self.questions += 1
        self.answers.wait(60)
        if self.error:
            raise self.error
        return self.questions


@pytest.fixture
def server():
    server = Server()
    yield server
    server.answers.set()


def test_an_answer_is_kept_for_a_moment_however_many_ask(server, monkeypatch):
    monkeypatch.setattr(patience, "FRESH", 60)
    server.answers.set()
    question = Question(server.ask)

    assert [question.read().answer for _ in range(5)] == [1] * 5
    assert question.pending_seconds is None
    monkeypatch.setattr(patience, "FRESH", 0)
    assert question.read().answer == 2


def test_a_server_that_hangs_is_waited_for_once_and_asked_once(server):
    question = Question(server.ask)
    began = time.monotonic()

    assert question.read(wait=0.2) is None
    assert time.monotonic() - began > 0.19
    began = time.monotonic()
    assert [question.read(wait=0.2) for _ in range(20)] == [None] * 20
    assert time.monotonic() - began < 0.2
    assert server.questions == 1
    assert question.pending_seconds > 0.2

    server.answers.set()
    eventually(lambda: question.pending_seconds is None, "an answer")
    assert question.read().answer is not None


def test_the_last_answer_is_shown_until_it_is_old(server, monkeypatch):
    server.answers.set()
    question = Question(server.ask)
    assert question.read().answer == 1
    server.answers.clear()

    assert question.read(wait=0.01).answer == 1
    assert question.read(wait=0.01).age > 0
    monkeypatch.setattr(patience, "STALE", 0)
    assert question.read(wait=0.01) is None


def test_an_error_is_an_answer(server):
    server.error = ConnectionRefusedError("no")
    server.answers.set()

    known = Question(server.ask).read()
    assert known.answer is None
    assert isinstance(known.error, ConnectionRefusedError)


def test_a_question_that_was_begun_is_answered_meanwhile(server):
    question = Question(server.ask)
    question.begin()
    eventually(lambda: server.questions == 1, "the question")
    server.answers.set()

    assert question.read().answer == 1
