"""
Whether the private database has the tables of this code.

`migrate` takes a second to find out. With this record it runs after the first orders instead of before them.
"""

import hashlib
from pathlib import Path

from orderflow.stack.checkout.folders import StackFolders


def is_current(folders: StackFolders) -> bool:
    """Return whether the migrations are unchanged since `migrate` last ran on this database."""
    try:
        return _note(folders).read_text() == _fingerprint(folders.root)
    except OSError:
        return False


def remember(folders: StackFolders) -> None:
    """Record that `migrate` has succeeded."""
    _note(folders).write_text(_fingerprint(folders.root))


def forget(folders: StackFolders) -> None:
    """Remove the record, because the user runs migrations by hand."""
    _note(folders).unlink(missing_ok=True)


def _note(folders: StackFolders) -> Path:
    return folders.servers / "migrated"  # next to the data, so that it is removed together with it


def _fingerprint(root: Path) -> str:
    """Hash the migrations, and the files that decide which migrations other packages add."""
    files = [root / "requirements.txt", root / "orderflow" / "settings.py"]
    digest = hashlib.sha256()
    for file in [*files, *sorted(root.glob("*/migrations/*.py"))]:
        if file.exists():
            digest.update(f"{file.relative_to(root)}\n".encode() + file.read_bytes())
    return digest.hexdigest()
