"""Runs PostgreSQL with pgvector, Valkey and a mail sink for one checkout.

The servers come from Python packages, so nothing has to be installed. They keep their data in the
data folder and listen on unix sockets in one private folder. Two checkouts on a machine never share
a server, and nobody else can connect: the folder's mode 0700 is the password.

One process, the supervisor, owns the servers: `with running(data): …`. Others may use them for as long
as they run: `with shared(data): …`.

Not for production: one machine, no replication, no TLS. Set DATABASE_URL and REDIS_URL there.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

from scribes.embedded import mail_sink, postgres, valkey
from scribes.embedded.addresses import socket_dir
from scribes.embedded.server_process import ServerFailed

SERVERS: dict[str, Callable[[Path], AbstractContextManager[None]]] = {
    "postgres": postgres.running,
    "valkey": valkey.running,
    "mail": mail_sink.running,
}

POLL_SECONDS = 0.05

# What the lock file contains once all servers answer.
READY = "ready"
POLL_SECONDS = 0.1


class AlreadyRunning(Exception):
    """Another supervisor owns this data folder."""


@contextmanager
def shared(data: Path, **with_servers: bool) -> Iterator[None]:
    """Use the servers that another process runs for this folder; if there is none, run them.

    The other process may stop its servers at any time. Takes the arguments of `running`, and raises
    AlreadyRunning if the other process does not run all of these servers.
    """
    with ExitStack() as stack:
        # The other process is starting its servers, or stopping them. If it dies, its lock is free.
        while not _own_or_find(stack, data.resolve(), with_servers):
            time.sleep(POLL_SECONDS)
        yield


def _own_or_find(stack: ExitStack, data: Path, with_servers: dict[str, bool]) -> bool:
    """Whether the servers run: since this process has started them, or since another one has."""
    try:
        stack.enter_context(running(data, **with_servers))
    except AlreadyRunning:
        if not (announced := _lock_file(data).read_text().split()):
            return False
        if missing := set(_names(**with_servers)) - set(announced):
            raise AlreadyRunning(
                f"Scribes already runs its servers in {data}, but not {', '.join(sorted(missing))}."
            ) from None
    return True


@contextmanager
def running(
    data: Path, *, with_postgres: bool = True, with_valkey: bool = True, with_mail: bool = False
) -> Iterator[None]:
    """Run the servers for the length of a with block, and stop them cleanly.

    Raises AlreadyRunning if another process does so for the same folder, and ServerFailed.
    Servers that a killed supervisor left behind are stopped first.
    """
    data = data.resolve()
    names = _names(with_postgres, with_valkey, with_mail)
    with ExitStack() as stack:
        _prepare(data)
        lock = stack.enter_context(_lock(data))
        for name in names:
            stack.enter_context(SERVERS[name](data))
        stack.enter_context(_announced(lock, names))
        yield
    if socket_dir(data).parent != data:
        shutil.rmtree(socket_dir(data), ignore_errors=True)


def _names(
    with_postgres: bool = True, with_valkey: bool = True, with_mail: bool = False
) -> list[str]:
    return [
        name
        for name, wanted in zip(SERVERS, (with_postgres, with_valkey, with_mail), strict=True)
        if wanted
    ]


def _lock_file(data: Path) -> Path:
    return data / "lock"


@contextmanager
def _lock(data: Path) -> Iterator[TextIO]:
    """Hold the data folder's lock. The operating system releases it when this process ends, even
    after SIGKILL."""
    with _lock_file(data).open("a") as file:
        if not try_lock(file.fileno()):
            raise AlreadyRunning(f"Scribes already runs its servers in {data}.")
        file.truncate(0)
        yield file


@contextmanager
def _announced(lock: TextIO, names: Sequence[str]) -> Iterator[None]:
    """The lock's file names the servers while they can be used."""
    lock.write(" ".join(names))
    lock.flush()
    try:
        yield
    finally:
        lock.truncate(0)


def try_lock(descriptor: int) -> bool:
    """Lock an open file for this process; False if another one has locked it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


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
