"""
Whether the private database already has the tables of this code.

`migrate` takes a second to find that out. A note lets it look after the first orders instead of before them.
"""

import hashlib
from pathlib import Path

from orderflow.stack.checkout.folders import StackFolders


def is_current(folders: StackFolders) -> bool:
    """Tell whether the migrations are those that were there when `migrate` last ran on this database."""
    try:
        return _note(folders).read_text() == _fingerprint(folders.root)
    except OSError:
        return False


def remember(folders: StackFolders) -> None:
    """Note that `migrate` has just succeeded."""
    _note(folders).write_text(_fingerprint(folders.root))


def forget(folders: StackFolders) -> None:
    """Drop the note, because somebody migrates by hand."""
    _note(folders).unlink(missing_ok=True)


def _note(folders: StackFolders) -> Path:
    return folders.servers / "migrated"  # beside the data, to go when that goes


def _fingerprint(root: Path) -> str:
    """Hash the migrations, and what decides which ones other packages bring."""
    files = [root / "requirements.txt", root / "orderflow" / "settings.py"]
    digest = hashlib.sha256()
    for file in [*files, *sorted(root.glob("*/migrations/*.py"))]:
        if file.exists():
            digest.update(f"{file.relative_to(root)}\n".encode() + file.read_bytes())
    return digest.hexdigest()
