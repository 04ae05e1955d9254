"""`manage.py export_openapi`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from orders.api import document, problems


class Command(BaseCommand):
    help = "Writes docs/openapi.json and docs/problems.md from the code."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--to", type=Path, default=settings.BASE_DIR / "docs", help="The directory.")
        parser.add_argument("--check", action="store_true", help="Write nothing; fail if a file is outdated.")

    def handle(self, *args: Any, to: Path, check: bool, **options: Any) -> None:
        wanted = {"openapi.json": document.as_json(), "problems.md": problems.as_markdown()}
        for name, text in wanted.items():
            file = to / name
            if check and (not file.exists() or file.read_text(encoding="utf-8") != text):
                raise CommandError(f"{file} is outdated: run manage.py export_openapi and commit the change")
            if not check:
                to.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")
                self.stdout.write(f"wrote {file}")
