"""Edits of the checklists are applied completely, or the failure names them."""

from __future__ import annotations

import pytest

from tests.extending.checklists import Edit, edits, numbered

DIFFERENCE = """--- a/app/moves.py
+++ b/app/moves.py
@@ -3,2 +3,3 @@
 first
+between
 second
"""


@pytest.fixture
def moves(tmp_path):
    (tmp_path / "app").mkdir()
    return tmp_path / "app" / "moves.py"


def test_a_difference_is_found_where_its_lines_have_moved_to(tmp_path, moves):
    moves.write_text("new\n" * 20 + "first\nsecond\n")
    Edit(line=7, section="A step", path="", text=DIFFERENCE).apply(tmp_path)

    assert moves.read_text().endswith("new\nfirst\nbetween\nsecond\n")


def test_a_difference_that_does_not_fit_is_named(tmp_path, moves):
    moves.write_text("another\n")

    with pytest.raises(AssertionError, match=r"docs/extending\.md:7 \(A step: app/moves\.py\) does not fit"):
        Edit(line=7, section="A step", path="", text=DIFFERENCE).apply(tmp_path)


def test_a_new_file_that_is_there_already_is_named(tmp_path, moves):
    moves.write_text("first\n")

    with pytest.raises(AssertionError, match=r"app/moves\.py\): the file is there already"):
        Edit(line=7, section="A step", path="app/moves.py", text="").apply(tmp_path)


def test_a_migration_gets_the_next_number_and_its_predecessor(tmp_path, moves):
    (tmp_path / "app" / "0014_last.py").touch()
    edit = Edit(line=7, section="A step", path="app/NNNN_next.py", text="after PREVIOUS")

    made = numbered(edit, tmp_path)
    assert (made.path, made.text) == ("app/0015_next.py", "after 0014_last")


def test_every_section_of_the_document_has_edits():
    assert {edit.section for edit in edits()} == {
        "A step with a status of its own",
        "An app of its own, with an event",
        "A channel",
        "A new version of an event",
    }
