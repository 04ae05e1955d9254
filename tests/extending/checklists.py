"""The checklists of docs/extending.md, as edits that can be applied."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.processes import ROOT

DOCUMENT = ROOT / "docs" / "extending.md"
BLOCK = re.compile(r'^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$', re.M | re.S)
HEADING = re.compile(r"^#+ (.+)$", re.M)


@dataclasses.dataclass(frozen=True)
class Edit:
    """A block of the document: a new file, or a diff of existing files."""

    line: int
    section: str
    path: str
    """The path of the new file; empty for a diff."""
    text: str

    def apply(self, checkout: Path) -> None:
        """
        Raises:
            AssertionError: if the block does not fit; it names the block.
        """
        if self.path:
            file = checkout / self.path
            assert not file.exists(), f"{self}: the file is there already"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(self.text)
            return
        # A diff has two lines of context; one must fit. Git must not find a repository around the copy.
        done = subprocess.run(
            ["git", "apply", "-C1", "-"],
            cwd=checkout,
            env={**os.environ, "GIT_CEILING_DIRECTORIES": str(checkout.parent)},
            input=self.text,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{self} does not fit the code any more:\n{done.stderr}\n{self.text}"

    def __str__(self) -> str:
        what = self.path or ", ".join(re.findall(r"^\+\+\+ b/(.+)$", self.text, re.M))
        return f"{DOCUMENT.relative_to(ROOT)}:{self.line} ({self.section}: {what})"


def edits() -> Iterator[Edit]:
    """Yield the edits of all checklists in their order."""
    document = DOCUMENT.read_text()
    for block in BLOCK.finditer(document):
        if block["title"] or block["language"] == "diff":
            before = document[: block.start()]
            yield Edit(
                line=before.count("\n") + 1,
                section=HEADING.findall(before)[-1],
                path=block["title"] or "",
                text=block["text"],
            )


def numbered(edit: Edit, checkout: Path) -> Edit:
    """Return a migration with its number in place of NNNN and the newest migration in place of PREVIOUS."""
    if "NNNN" not in edit.path:
        return edit
    newest = max(path.stem for path in (checkout / edit.path).parent.glob("[0-9]*.py"))
    return dataclasses.replace(
        edit,
        path=edit.path.replace("NNNN", f"{int(newest[:4]) + 1:04}"),
        text=edit.text.replace("PREVIOUS", newest),
    )
