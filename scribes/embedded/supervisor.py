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
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from scribes.embedded import mail_sink, postgres, valkey
from scribes.embedded.addresses import socket_dir
from scribes.embedded.server_process import ServerFailed

# What the lock file contains once all servers answer.
READY = "ready"
POLL_SECONDS = 0.1


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
        _lock_file(data).write_text(READY)
        yield
    if socket_dir(data).parent != data:
        shutil.rmtree(socket_dir(data), ignore_errors=True)


@contextmanager
def running_or_shared(data: Path, **servers: bool) -> Iterator[None]:
    """Like `running`, but use the servers of another supervisor if there is one.

    They stop when that one ends. Raises ServerFailed.
    """
    with ExitStack() as stack:
        while not _is_ready(data):
            try:
                stack.enter_context(running(data, **servers))
            except AlreadyRunning:
                time.sleep(POLL_SECONDS)  # they are starting, or stopping
        yield


def _is_ready(data: Path) -> bool:
    """Whether the servers of the data folder run, here or under another supervisor."""
    file = _lock_file(data)
    return file.exists() and file.read_text() == READY and is_locked(file)


def _lock_file(data: Path) -> Path:
    return data / "lock"


@contextmanager
def _lock(data: Path) -> Iterator[None]:
    """Hold the data folder's lock. The operating system releases it when this process ends, even
    after SIGKILL."""
    with _lock_file(data).open("a") as file:
        if not try_lock(file.fileno()):
            raise AlreadyRunning(f"Scribes already runs its servers in {data}.")
        file.truncate(0)
        yield


def try_lock(descriptor: int) -> bool:
    """Lock an open file for this process; False if another one has locked it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_locked(path: Path) -> bool:
    with path.open("a") as file:
        return not try_lock(file.fileno())


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
