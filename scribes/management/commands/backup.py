from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from scribes.monitoring import backup


class Command(BaseCommand):
    help = "Write the database and the secrets into a new folder. Scribes may keep running."

    def add_arguments(self, parser: CommandParser) -> None:
        help = "a folder that does not exist yet (default: DATA_DIR/backups/<time>)"
        parser.add_argument("folder", nargs="?", type=Path, help=help)

    def handle(self, *args: Any, folder: Path | None, **options: Any) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%d-%H%M%S")
        folder = folder or settings.DATA_DIR / "backups" / now
        if folder.exists():
            raise CommandError(f"{folder} already exists.")
        try:
            backup.backup(folder)
        except backup.BackupFailed as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"Backup written to {folder}")
