from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from scribes import backup


class Command(BaseCommand):
    help = (
        "Put what `manage.py backup` wrote in place of the database and the secrets. Stop web, "
        "worker and beat first. The database of before is kept under another name."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", type=Path)
        parser.add_argument("--yes", action="store_true", help="Do not ask.")

    def handle(self, *args: Any, folder: Path, **options: Any) -> None:
        if not (folder / backup.DUMP).is_file():
            raise CommandError(f"{folder} has no {backup.DUMP}.")
        question = "This replaces the database. Type yes to go on: "
        if not options["yes"] and input(question) != "yes":
            raise CommandError("Nothing was changed.")
        try:
            former = backup.restore(folder)
        except backup.BackupFailed as error:
            raise CommandError(f"Nothing was changed. {error}") from error
        self.stdout.write(f"Restored. The database of before is called {former}.")
