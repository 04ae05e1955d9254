"""The liveness file: touched by the loop, closed to others, and never a reason for a failure."""

from __future__ import annotations

import os
import stat
import threading

import pytest
from django.db import connection

from outbox import checks
from outbox.worker import beat, liveness
from outbox.worker.liveness import LivenessFile


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "alive")


def test_the_file_belongs_to_its_owner_alone(path):
    before = os.umask(0)
    try:
        LivenessFile(path).turned()
    finally:
        os.umask(before)

    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_a_turn_touches_the_file_at_most_once_a_second(path):
    file = LivenessFile(path)
    file.turned()
    os.utime(path, (0, 0))

    file.turned()
    assert os.stat(path).st_mtime == 0

    file._touched_at -= liveness.EVERY
    file.turned()
    assert os.stat(path).st_mtime > 0


def test_a_file_that_somebody_removed_comes_back(path):
    file = LivenessFile(path)
    file.turned()
    os.remove(path)
    file._touched_at -= liveness.EVERY

    file.turned()

    assert os.path.exists(path)


def test_a_link_is_not_followed(path, tmp_path, caplog):
    target = tmp_path / "precious"
    target.touch()
    os.utime(target, (0, 0))
    os.symlink(target, path)

    LivenessFile(path).turned()

    assert target.stat().st_mtime == 0
    assert "cannot be touched" in caplog.text


def test_a_file_that_cannot_be_touched_is_reported_once(path, caplog):
    os.mkdir(path)
    file = LivenessFile(path)
    for _ in range(3):
        file.turned()
        file._touched_at -= liveness.EVERY

    assert caplog.text.count("cannot be touched") == 1


def test_a_child_does_not_touch_the_file_of_its_worker(path):
    file = LivenessFile(path)
    if (child := os.fork()) == 0:
        file.turned()
        os._exit(0)
    os.waitpid(child, 0)

    assert not os.path.exists(path)


def in_a_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_a_stuck_loop_beside_the_main_one_keeps_the_file_from_being_touched(path, caplog):
    file = LivenessFile(path)
    in_a_thread(lambda: file.other_turned("listen"))
    file.turned()
    [(thread, (loop, at))] = file._others.items()
    file._others[thread] = loop, at - liveness.STUCK_AFTER - 1
    os.utime(path, (0, 0))

    file._touched_at -= liveness.EVERY
    file.turned()
    assert os.stat(path).st_mtime == 0
    assert "listen" in caplog.text

    file._waiting[thread] = at  # for the database
    file._touched_at -= liveness.EVERY
    file.turned()
    assert os.stat(path).st_mtime > 0


def test_a_loop_that_has_ended_is_not_stuck(path):
    file = LivenessFile(path)

    def turn_and_end():
        file.other_turned("listen")
        file.other_ended()

    in_a_thread(turn_and_end)

    assert not file._others


def test_only_statements_of_loops_count_as_waits(path):
    file, seen = LivenessFile(path), []

    def wait():
        with file.waiting():
            seen.append(dict(file._waiting))

    in_a_thread(wait)
    wait()

    assert [len(waits) for waits in seen] == [0, 1]
    assert not file._waiting


@pytest.mark.django_db
def test_a_statement_of_the_main_loop_is_a_wait(path, monkeypatch):
    monkeypatch.setattr(liveness, "_file", file := LivenessFile(path))
    seen = []

    def watch(execute, *statement):
        seen.append(bool(file._waiting))
        return execute(*statement)

    liveness._watch_statements(connection)
    try:
        with connection.execute_wrapper(watch), connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    finally:
        connection.execute_wrappers.remove(liveness._run_marked)

    assert seen == [True]
    assert not file._waiting


def test_without_a_path_nothing_is_watched(settings, monkeypatch):
    settings.OUTBOX_LIVENESS_FILE = ""
    before = threading.active_count()

    liveness.begin()
    liveness.turned()

    assert threading.active_count() == before
    assert liveness._run_marked not in connection.execute_wrappers


@pytest.mark.parametrize(
    ("path", "why"), [("alive", "not absolute"), ("/no/such/folder/alive", "does not exist")]
)
def test_a_path_that_cannot_be_used_keeps_processes_from_starting(settings, path, why):
    settings.OUTBOX_LIVENESS_FILE = path

    found = list(checks.check_liveness_file())

    assert [error.id for error in found] == ["outbox.E003"]
    assert why in found[0].msg


def test_a_usable_path_passes_the_check(settings, path):
    settings.OUTBOX_LIVENESS_FILE = path
    assert not list(checks.check_liveness_file())


def test_beat_ticks_often_enough_for_a_probe_whatever_its_schedule():
    assert beat.LONGEST_SLEEP < liveness.LONGEST_GAP / 2
