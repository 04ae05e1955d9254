"""
Whether the private database already has the tables of this code.

`migrate` takes a second to find that out. A note lets it look after the first orders instead of before them.
"""

import hashlib
from pathlib import Path

from .homes import Home


def is_current(home: Home) -> bool:
    """Tell whether the migrations are those that were there when `migrate` last ran on this database."""
    try:
        return _note(home).read_text() == _fingerprint(home.root)
    except OSError:
        return False


def remember(home: Home) -> None:
    """Note that `migrate` has just succeeded."""
    _note(home).write_text(_fingerprint(home.root))


def forget(home: Home) -> None:
    """Drop the note, because somebody migrates by hand."""
    _note(home).unlink(missing_ok=True)


def _note(home: Home) -> Path:
    return home.servers / "migrated"  # beside the data, to go when that goes


def _fingerprint(root: Path) -> str:
    """Hash the migrations, and what decides which ones other packages bring."""
    files = [root / "requirements.txt", root / "orderflow" / "settings.py"]
    digest = hashlib.sha256()
    for file in [*files, *sorted(root.glob("*/migrations/*.py"))]:
        if file.exists():
            digest.update(f"{file.relative_to(root)}\n".encode() + file.read_bytes())
    return digest.hexdigest()
