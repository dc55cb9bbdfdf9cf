"""Backup and restore of what cannot be recreated: the database, and the secrets in DATA_DIR.

A backup does not contain Redis, whose messages are sent again from the rows, nor converted models.
It uses the pg_dump of the embedded PostgreSQL, which works with any server that is not newer.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

import psycopg
from django.conf import settings
from django.db import connections
from psycopg import sql

from scribes.embedded.postgres import postgres_bin

DUMP = "database.dump"
SECRETS = "secrets"


class BackupFailed(Exception):
    """pg_dump or pg_restore failed; the message is what it printed."""


def backup(folder: Path) -> None:
    """Write a backup into `folder`, which must not exist yet.

    Scribes may keep running: the backup has the database as it was when the backup started. Raises
    BackupFailed, and then leaves nothing behind.
    """
    draft = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700, parents=True)
    try:
        _run("pg_dump", "--format=custom", "--no-owner", f"--file={draft / DUMP}", _url())
        if (settings.DATA_DIR / SECRETS).is_dir():
            shutil.copytree(settings.DATA_DIR / SECRETS, draft / SECRETS)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def restore(folder: Path) -> str:
    """Replace the database and the secrets by those of a backup; the name of the old database,
    which is kept.

    All or nothing: the backup is restored beside the old database, and then both are renamed.
    Connections to the old database are ended, so stop web, worker and beat first. Raises
    BackupFailed.
    """
    name = urlsplit(settings.DATABASE_URL).path.lstrip("/")
    restoring, replaced = f"{name}_restoring", f"{name}_before_restore"
    connections.close_all()
    with psycopg.connect(settings.DATABASE_URL, dbname="postgres", autocommit=True) as server:
        _drop(server, restoring)
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(restoring)))
        try:
            options = ("--no-owner", "--exit-on-error", f"--dbname={_url(restoring)}")
            _run("pg_restore", *options, str(folder / DUMP))
        except BackupFailed:
            _drop(server, restoring)
            raise
        _drop(server, replaced)
        end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
        server.execute(end, [name])
        with server.transaction():
            _rename(server, name, replaced)
            _rename(server, restoring, name)
    if (folder / SECRETS).is_dir():
        shutil.copytree(folder / SECRETS, settings.DATA_DIR / SECRETS, dirs_exist_ok=True)
    return replaced


def _drop(server: psycopg.Connection, name: str) -> None:
    statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
    server.execute(statement.format(sql.Identifier(name)))


def _rename(server: psycopg.Connection, name: str, to: str) -> None:
    statement = sql.SQL("ALTER DATABASE {} RENAME TO {}")
    server.execute(statement.format(sql.Identifier(name), sql.Identifier(to)))


def _run(program: str, *arguments: str) -> None:
    """Run a program of PostgreSQL. The password goes into its environment, since everybody on the
    machine can see its arguments."""
    password = unquote(urlsplit(settings.DATABASE_URL).password or "")
    environment = os.environ | ({"PGPASSWORD": password} if password else {})
    command = [str(postgres_bin(program)), *arguments]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    if result.returncode:
        raise BackupFailed(f"{program}: {result.stderr.strip()}")


def _url(name: str = "") -> str:
    """The URL of the database, or of another one on its server, without the password."""
    url = urlsplit(settings.DATABASE_URL)
    user, _, host = url.netloc.rpartition("@")
    netloc = f"{user.partition(':')[0]}@{host}" if user else host
    path = f"/{name}" if name else url.path
    # urlunsplit drops the two empty slashes before a path without a host.
    if not netloc:
        return f"{url.scheme}://{path}" + (f"?{url.query}" if url.query else "")
    return urlunsplit(url._replace(netloc=netloc, path=path))
