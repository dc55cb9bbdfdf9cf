from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from scribes.monitoring import backup


class Command(BaseCommand):
    help = (
        "Replace the database and the secrets by those of a backup. Stop web, worker and beat first. "
        "The old database is kept under another name."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", type=Path, help="a folder that `manage.py backup` wrote")
        parser.add_argument("--yes", action="store_true", help="do not ask for confirmation")

    def handle(self, *args: Any, folder: Path, **options: Any) -> None:
        if not (folder / backup.DUMP).is_file():
            raise CommandError(f"{folder} has no {backup.DUMP}.")
        question = "This replaces the database. Type yes to continue: "
        if not options["yes"] and input(question) != "yes":
            raise CommandError("Nothing was changed.")
        try:
            replaced = backup.restore(folder)
        except backup.BackupFailed as error:
            raise CommandError(f"Nothing was changed. {error}") from error
        self.stdout.write(f"Restored. The old database is now called {replaced}.")
