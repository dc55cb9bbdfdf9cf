"""Runs PostgreSQL with pgvector, Valkey and a mail sink for one checkout.

The servers come from Python packages, so nothing has to be installed. They keep their data in the
data folder and listen on unix sockets in one private folder. Two checkouts on a machine never share
a server, and nobody else can connect: the folder's mode 0700 is the password.

One process, the supervisor, owns the servers: `with running(data): …`.

Not for production: one machine, no replication, no TLS. Set DATABASE_URL and REDIS_URL there.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from scribes.embedded import mail_sink, postgres, valkey
from scribes.embedded.addresses import socket_dir
from scribes.embedded.server_process import ServerFailed


class AlreadyRunning(Exception):
    """Another supervisor owns this data folder."""


@contextmanager
def running(
    data: Path, *, with_postgres: bool = True, with_valkey: bool = True, with_mail: bool = False
) -> Iterator[None]:
    """Run the servers for the length of a with block, and stop them cleanly.

    Raises AlreadyRunning if another process does so for the same folder, and ServerFailed.
    Servers that a killed supervisor left behind are stopped first.
    """
    data = data.resolve()
    with ExitStack() as stack:
        _prepare(data)
        stack.enter_context(_lock(data))
        if with_postgres:
            stack.enter_context(postgres.running(data))
        if with_valkey:
            stack.enter_context(valkey.running(data))
        if with_mail:
            stack.enter_context(mail_sink.running(data))
        yield
    if socket_dir(data).parent != data:
        shutil.rmtree(socket_dir(data), ignore_errors=True)


@contextmanager
def _lock(data: Path) -> Iterator[None]:
    """Hold the data folder's lock. The operating system releases it when this process ends, even
    after SIGKILL."""
    with (data / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(f"Scribes already runs its servers in {data}.") from None
        yield


def _prepare(data: Path) -> None:
    data.mkdir(parents=True, exist_ok=True)
    private = socket_dir(data)
    private.mkdir(mode=0o700, exist_ok=True)
    if postgres.postgres_user():
        postgres.let_postgres_user_pass(data)
        postgres.give_to_postgres_user(private)
    _check_private(private)


def _check_private(folder: Path) -> None:
    """Raise ServerFailed if somebody else made the folder, as they can in a shared temporary folder."""
    found = folder.lstat()
    user = postgres.postgres_user()
    owner = pwd.getpwnam(user).pw_uid if user else os.geteuid()
    if found.st_uid != owner or found.st_mode & 0o077 or folder.is_symlink():
        raise ServerFailed(f"{folder} must be a folder of mode 0700 that belongs to you.")
