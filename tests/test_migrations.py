"""Migrations on a full database, while the old version still runs.

A migration that was released is never edited. CONTRIBUTING.md says how to write a safe one.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from django.conf import settings
from psycopg import sql

from scribes.embedded.postgres import postgres_bin
from tests.helpers.processes import PROGRAMS, environment, eventually, running

ROOT: Path = settings.BASE_DIR
APPS = ("scribes", "jobs", "notes", "reminders")
POPULATED = Path(__file__).with_name("data") / "populated_0001.sql"
# Queues of their own: the databases here are not the one of the other tests.
PREFIX = "scribes-test-migrations:"
SQUAWK = shutil.which("squawk", path=str(PROGRAMS))


def later_migrations() -> list[tuple[str, str]]:
    """(app, name) of all migrations after each app's first."""
    return [
        (app, file.stem)
        for app in APPS
        for file in sorted((ROOT / app / "migrations").glob("0*.py"))
        if not file.stem.startswith("0001")
    ]


@contextmanager
def empty_database(name: str) -> Iterator[str]:
    """The URL of a new database, which is deleted afterwards."""
    with psycopg.connect(settings.DATABASE_URL, dbname="postgres", autocommit=True) as server:
        identifier = sql.Identifier(name)
        drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(identifier)
        server.execute(drop)
        server.execute(sql.SQL("CREATE DATABASE {}").format(identifier))
        try:
            yield url_of(name)
        finally:
            server.execute(drop)


def url_of(name: str) -> str:
    url = urlsplit(settings.DATABASE_URL)
    if not url.netloc:  # urlunsplit drops the two slashes before a path without a host
        return f"{url.scheme}:///{name}?{url.query}"
    return urlunsplit(url._replace(path=f"/{name}"))


def manage(tree: Path, url: str, *arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        env=environment(DATABASE_URL=url, REDIS_KEY_PREFIX=PREFIX),
        cwd=tree,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def row_counts(url: str) -> dict[str, int]:
    query = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    with psycopg.connect(url) as session:
        tables = [name for (name,) in session.execute(query)]
        return {
            name: session.execute(
                sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(name))
            ).fetchone()[0]  # type: ignore[index]
            for name in tables
        }


# --- Locks ----------------------------------------------------------------------------------


def squawk(statements: str) -> subprocess.CompletedProcess[str]:
    assert SQUAWK
    command = [SQUAWK, "--config", str(ROOT / ".squawk.toml")]
    return subprocess.run(command, input=statements, capture_output=True, text=True)


@pytest.mark.skipif(not SQUAWK, reason="squawk is not installed")
def test_squawk_reports_statements_that_block_a_full_table():
    for statement in (
        "CREATE INDEX i ON notes (title);",
        "ALTER TABLE notes ADD CONSTRAINT c CHECK (id > 0);",
        "ALTER TABLE notes ALTER COLUMN title TYPE text;",
        "ALTER TABLE notes RENAME COLUMN title TO name;",
    ):
        assert squawk(statement).returncode == 1, statement
    assert squawk("ALTER TABLE notes ADD COLUMN x bigint;").returncode == 0


@pytest.mark.skipif(not SQUAWK, reason="squawk is not installed")
@pytest.mark.usefixtures("servers")
def test_later_migrations_do_not_block_a_full_table():
    for app, name in later_migrations():
        statements = manage(ROOT, settings.DATABASE_URL, "sqlmigrate", app, name)
        result = squawk(statements)
        assert result.returncode == 0, f"{app}.{name}\n{result.stdout}"


# --- Rows -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("servers", "db")
def test_migrate_keeps_the_rows_of_a_populated_database():
    with empty_database("scribes_test_populated") as url:
        manage(ROOT, url, "shell", "-c", MIGRATE_TO_0001)
        subprocess.run(
            [str(postgres_bin("psql")), url, "-q", "-v", "ON_ERROR_STOP=1", "-f", str(POPULATED)],
            check=True,
        )
        before = row_counts(url)
        assert all(before[table] for table in populated_tables())
        manage(ROOT, url, "migrate")
        after = row_counts(url)
        assert {name: after[name] for name in populated_tables()} == {
            name: before[name] for name in populated_tables()
        }


MIGRATE_TO_0001 = f"""
from django.core.management import call_command
for app in {APPS}:
    call_command("migrate", app, "0001")
"""


def populated_tables() -> list[str]:
    lines = POPULATED.read_text().splitlines()
    return [line.split()[1].removeprefix("public.") for line in lines if line.startswith("COPY ")]


# --- The old version ------------------------------------------------------------------------


def previous_version(folder: Path) -> Path:
    """The last committed tree without any of the later migrations; HEAD while there is only 0001."""
    revision = "HEAD"
    if later := [f"{app}/migrations/{name}.py" for app, name in later_migrations()]:
        log = ["git", "log", "--diff-filter=A", "--format=%H", "--", *later]
        added = subprocess.run(log, cwd=ROOT, capture_output=True, text=True).stdout.split()
        revision = f"{added[-1]}^" if added else "HEAD"
    archive = subprocess.run(["git", "archive", revision], cwd=ROOT, capture_output=True)
    if archive.returncode:
        pytest.skip("the history of the repository is not here")
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder


@pytest.mark.usefixtures("servers", "db")
def test_old_worker_keeps_working_while_the_new_version_migrates(tmp_path: Path):
    old = previous_version(tmp_path / "old")
    with empty_database("scribes_test_upgrade") as url:
        manage(old, url, "migrate")
        env = environment(DATABASE_URL=url, REDIS_KEY_PREFIX=PREFIX, WORKER_CONCURRENCY="1")
        with running(
            ["celery", "-A", "scribes", "worker"], tmp_path / "log", env, cwd=old
        ) as worker:
            worker.await_output("is ready")
            manage(ROOT, url, "migrate")
            manage(old, url, "shell", "-c", START_JOB)
            eventually(lambda: job_statuses(url) == ["completed"])
        assert "Traceback" not in worker.output


# What the old web process would do.
START_JOB = """
from jobs.runner import enqueue
from notes.models import Note
from scribes.models import User

user = User.objects.create_user("alice@example.com")
Note.objects.create(user=user, title="Rest", content="He leadeth me beside the still waters.")
enqueue(user, "embedding_regeneration", {})
"""


def job_statuses(url: str) -> list[str]:
    with psycopg.connect(url) as session:
        return [status for (status,) in session.execute("SELECT status FROM background_jobs")]
