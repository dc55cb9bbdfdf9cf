"""`manage.py backup` and `restore`: what comes back is what was there."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, time
from pathlib import Path

import psycopg
import pytest
from django.core.management import CommandError, call_command

from jobs.models import ItemFailure
from notes.models import EmbeddingModel, Note, Passage
from reminders.models import Reminder
from scribes.models import User
from tests.jobs.conftest import make_job
from tests.processes import MANAGE, environment
from tests.scribes.test_doctor import database_called, maintenance


def manage(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MANAGE, *arguments],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=60,
    )


def fill(user: User) -> None:
    note = Note.objects.create(user=user, title="Ps “23”", content="The LORD\nis my shepherd 🐑")
    model = EmbeddingModel.objects.create(version="m@1")
    span = {"ordinal": 0, "char_start": 0, "char_end": 8, "text_hash": "", "vector": [0.5, -1]}
    Passage.objects.create(note=note, user=user, model=model, current=True, **span)
    job = make_job(user, status="completed", total_items=1, failed_items=1)
    ItemFailure.objects.create(job=job, item_id=note.pk, error_class="E", message="it's")
    now = datetime.now(UTC)
    start = {"start_date": now.date(), "start_time": time(9), "time_zone": "Europe/Berlin"}
    Reminder.objects.create(user=user, note=note, scheduled_at=now, **start)


def contents(url: str) -> dict[str, list[tuple[object, ...]]]:
    """All rows of all tables."""
    with psycopg.connect(url) as database:
        query = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        tables = [row[0] for row in database.execute(query)]
        # A row as text is what PostgreSQL itself compares and writes.
        return {
            table: database.execute(f'SELECT t::text FROM "{table}" t ORDER BY 1').fetchall()  # noqa: S608 its own tables
            for table in tables
        }


def test_what_was_backed_up_comes_back(transactional_db: None, tmp_path: Path):
    fill(User.objects.create_user("alice@example.com", "a password"))
    folder, data = tmp_path / "backup", tmp_path / "data"
    secret = {"DATA_DIR": str(data), "FLOWER_BASIC_AUTH": ""}
    before = contents(environment()["DATABASE_URL"])

    written = manage("backup", str(folder), **secret)
    assert written.returncode == 0, written.stderr
    assert folder.stat().st_mode & 0o077 == 0
    password = (data / "secrets" / "flower-password").read_text()

    elsewhere = {"DATA_DIR": str(tmp_path / "new"), "FLOWER_BASIC_AUTH": ""}
    with database_called("restored") as url:
        try:
            restored = manage("restore", "--yes", str(folder), DATABASE_URL=url, **elsewhere)
            assert restored.returncode == 0, restored.stderr
            assert contents(url) == before
        finally:
            with maintenance() as server:
                server.execute("DROP DATABASE IF EXISTS restored_before_restore")
    assert before["notes"]
    assert before["passages"]
    assert (tmp_path / "new" / "secrets" / "flower-password").read_text() == password


def test_a_broken_backup_changes_nothing(db: None, tmp_path: Path):
    (tmp_path / "database.dump").write_bytes(b"PGDMP, but not really")
    with database_called("kept") as url:
        with psycopg.connect(url) as database:
            database.execute("CREATE TABLE treasure ()")
        result = manage("restore", "--yes", str(tmp_path), DATABASE_URL=url)
        assert result.returncode == 1
        assert "Nothing was changed" in result.stderr
        assert list(contents(url)) == ["treasure"]
        with maintenance() as server:
            left = "SELECT 1 FROM pg_database WHERE datname LIKE 'kept\\_%'"
            assert server.execute(left).fetchone() is None


def test_an_existing_folder_is_not_overwritten(tmp_path: Path):
    with pytest.raises(CommandError, match="is there already"):
        call_command("backup", str(tmp_path))
