"""Real processes for tests: started with the test database, awaited, and stopped again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier
from typing import TypeVar
from urllib.parse import urlsplit

import psutil
from django.conf import settings
from django.db import connection, connections

PROGRAMS = Path(sys.executable).parent
MANAGE = [sys.executable, str(settings.BASE_DIR / "manage.py")]
STOP_TIMEOUT_SECONDS = 60

T = TypeVar("T")


def eventually(read: Callable[[], T], timeout: float = 60) -> T:
    """Call `read` until it returns a true value, and return that; fails after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (value := read()):
        assert time.monotonic() < deadline, f"still {value!r} after {timeout} s"
        time.sleep(0.05)
    return value


def run_concurrently(number: int, call: Callable[[int], T]) -> list[T]:
    """The results of call(0), call(1), …, each in a thread of its own. All threads start together."""
    barrier = Barrier(number)

    def run(n: int) -> T:
        barrier.wait()
        try:
            return call(n)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(run, range(number)))


def environment(**variables: str) -> dict[str, str]:
    """The environment of a process that uses the test database and this test run's queues."""
    url = urlsplit(settings.DATABASE_URL)
    name = connection.settings_dict["NAME"]
    # urlunsplit drops the two empty slashes before a path without a host.
    database = f"{url.scheme}://{url.netloc}/{name}" + (f"?{url.query}" if url.query else "")
    return os.environ | {
        "DATABASE_URL": database,
        "REDIS_URL": settings.REDIS_URL,
        "DJANGO_SETTINGS_MODULE": "scribes.settings",
        "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}",
        **variables,
    }


def manage(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `manage.py` with these arguments and environment variables on the test database."""
    return subprocess.run(
        [*MANAGE, *arguments],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=60,
    )


def last_line_of(code: str, **variables: str) -> str:
    """Run this Python code in a new process; the last line that it prints."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(**variables),
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()[-1]


def own_environment(data: Path, **variables: str) -> dict[str, str]:
    """The environment of a process with a data folder, servers and secrets of its own.

    The other variables are empty and not absent: an absent variable would be read from .env.
    """
    names = ("DATABASE_URL", "REDIS_URL", "EMAIL_URL", "SECRET_KEY", "FLOWER_BASIC_AUTH")
    empty = dict.fromkeys(names, "")
    settings_module = {"DJANGO_SETTINGS_MODULE": "scribes.settings"}
    return os.environ | empty | settings_module | {"DATA_DIR": str(data)} | variables


def left_over(data: Path) -> list[str]:
    """The command lines of all running processes that name this data folder."""
    processes = psutil.process_iter(["cmdline"])
    lines = [" ".join(process.info["cmdline"] or []) for process in processes]
    return [line for line in lines if str(data) in line]


class Process:
    """A running process and everything that it has printed."""

    def __init__(self, popen: subprocess.Popen[bytes], log: Path) -> None:
        self.popen = popen
        self.log = log

    @property
    def output(self) -> str:
        return self.log.read_text()

    def await_output(self, text: str, timeout: float = 60) -> None:
        def has_printed() -> bool:
            assert self.popen.poll() is None, f"it ended:\n{self.output}"
            return text in self.output

        eventually(has_printed, timeout)


@contextmanager
def running(
    command: list[str], log: Path, env: dict[str, str], cwd: Path = settings.BASE_DIR
) -> Iterator[Process]:
    """Run a command for the length of a with block, then stop it with SIGTERM."""
    with log.open("wb") as output:
        popen = subprocess.Popen(
            command,
            env=env | {"PYTHONUNBUFFERED": "1"},
            cwd=cwd,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Process(popen, log)
    finally:
        popen.terminate()
        try:
            popen.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(popen.pid, signal.SIGKILL)
            raise
