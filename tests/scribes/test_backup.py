"""`manage.py backup` and `manage.py restore`."""

from __future__ import annotations

from datetime import time
from pathlib import Path

import psycopg
import pytest
from django.core.management import CommandError, call_command

from jobs.models import ItemFailure
from notes.models import EmbeddingModel, Passage
from scribes.models import User
from tests.helpers.databases import database_called, maintenance
from tests.helpers.factories import make_job, make_note, make_reminder
from tests.helpers.processes import environment, manage


def create_rows(user: User) -> None:
    """Rows of every app, with quotes, line breaks, an emoji and a vector."""
    note = make_note(user, "Ps “23”", content="The LORD\nis my shepherd 🐑")
    model = EmbeddingModel.objects.create(version="m@1")
    span = {"ordinal": 0, "char_start": 0, "char_end": 8, "text_hash": "", "vector": [0.5, -1]}
    Passage.objects.create(note=note, user=user, model=model, current=True, **span)
    job = make_job(user, status="completed", total_items=1, failed_items=1)
    ItemFailure.objects.create(job=job, item_id=note.pk, error_class="E", message="it's")
    make_reminder(note, start_time=time(9), time_zone="Europe/Berlin")


def contents(url: str) -> dict[str, list[tuple[object, ...]]]:
    """All rows of all tables, as text, by the table's name."""
    with psycopg.connect(url) as database:
        query = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        tables = [row[0] for row in database.execute(query)]
        return {
            table: database.execute(f'SELECT t::text FROM "{table}" t ORDER BY 1').fetchall()  # noqa: S608 the database's own tables
            for table in tables
        }


def test_restore_brings_back_rows_and_secrets(transactional_db: None, tmp_path: Path):
    create_rows(User.objects.create_user("alice@example.com", "a password"))
    folder, data, new_data = (tmp_path / name for name in ("backup", "data", "new"))
    before = contents(environment()["DATABASE_URL"])

    result = manage("backup", str(folder), DATA_DIR=str(data), FLOWER_BASIC_AUTH="")
    assert result.returncode == 0, result.stderr
    assert folder.stat().st_mode & 0o077 == 0
    password = (data / "secrets" / "flower-password").read_text()

    with database_called("restored") as url:
        variables = {"DATABASE_URL": url, "DATA_DIR": str(new_data), "FLOWER_BASIC_AUTH": ""}
        try:
            result = manage("restore", "--yes", str(folder), **variables)
            assert result.returncode == 0, result.stderr
            assert contents(url) == before
        finally:
            with maintenance() as server:
                server.execute("DROP DATABASE IF EXISTS restored_before_restore")
    assert before["notes"]
    assert before["passages"]
    assert (new_data / "secrets" / "flower-password").read_text() == password


def test_restore_changes_nothing_if_the_backup_is_broken(db: None, tmp_path: Path):
    (tmp_path / "database.dump").write_bytes(b"PGDMP, but not really")
    with database_called("kept") as url:
        with psycopg.connect(url) as database:
            database.execute("CREATE TABLE treasure ()")
        result = manage("restore", "--yes", str(tmp_path), DATABASE_URL=url)
        assert result.returncode == 1
        assert "Nothing was changed." in result.stderr
        assert list(contents(url)) == ["treasure"]
        with maintenance() as server:
            others = "SELECT 1 FROM pg_database WHERE datname LIKE 'kept\\_%'"
            assert server.execute(others).fetchone() is None


def test_backup_refuses_to_overwrite_a_folder(tmp_path: Path):
    with pytest.raises(CommandError, match="already exists"):
        call_command("backup", str(tmp_path))


def test_restore_refuses_a_folder_without_a_backup(tmp_path: Path):
    with pytest.raises(CommandError, match=r"has no database\.dump"):
        call_command("restore", "--yes", str(tmp_path))
