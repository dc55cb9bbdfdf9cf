"""Real processes for tests: started with the test database, awaited, and stopped again."""

from __future__ import annotations

import inspect
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
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

import psutil
from django.conf import settings
from django.db import connection, connections

from scribes.embedded.progress import Progress

PROGRAMS = Path(sys.executable).parent
MANAGE = [sys.executable, str(settings.BASE_DIR / "manage.py")]
# Far longer than anything takes. It only keeps a test run from hanging.
LONGEST_WAIT_SECONDS = 600

T = TypeVar("T")

# The logs of the processes that run now, for failure messages.
_logs: list[Path] = []


class Watched(Protocol):
    """A process that may end while it is waited for."""

    def poll(self) -> int | None: ...

    @property
    def output(self) -> str: ...


def eventually(
    read: Callable[[], T],
    observe: Callable[[], object] = lambda: None,
    *,
    process: Watched | None = None,
) -> T:
    """Call `read` until it returns a true value, and return that.

    There is no time limit while the processes of this test run make progress: while they use CPU time,
    or `observe` returns new values. It fails when they have done nothing for a minute, when `process`
    has ended, or after LONGEST_WAIT_SECONDS without a new value.
    """
    progress = Progress(psutil.Process(), observe, LONGEST_WAIT_SECONDS)
    start = time.monotonic()
    while not (value := read()):
        assert process is None or process.poll() is None, f"it ended:\n{process.output}"
        waited = time.monotonic() - start
        assert not progress.has_stalled(), _stuck(read, value, waited, observe())
        # Often at first, and then less often: asking must not look like progress.
        time.sleep(min(max(0.05, waited / 60), 1))
    return value


def _stuck(read: Callable[[], object], value: object, waited: float, observed: object) -> str:
    """What was waited for, and the end of what each process has printed."""
    is_lambda = getattr(read, "__name__", "") == "<lambda>"
    name = inspect.getsource(read).strip() if is_lambda else repr(read)
    ends = [f"--- {log.name}\n{log.read_text(errors='replace')[-2000:]}" for log in _logs]
    lines = (f"{name}\nis still {value!r} after {waited:.0f} s. Observed: {observed!r}", *ends)
    return "\n".join(lines)


@contextmanager
def shown_log(log: Path) -> Iterator[None]:
    """Show the end of this log if something is waited for in vain."""
    _logs.append(log)
    try:
        yield
    finally:
        _logs.remove(log)


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
        timeout=LONGEST_WAIT_SECONDS,
    )


def last_line_of(code: str, **variables: str) -> str:
    """Run this Python code in a new process; the last line that it prints."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(**variables),
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
        timeout=LONGEST_WAIT_SECONDS,
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

    def poll(self) -> int | None:
        """Its exit status; None while it runs."""
        return self.popen.poll()

    def await_output(self, text: str) -> None:
        eventually(lambda: text in self.output, lambda: len(self.output), process=self)

    def await_end(self) -> int:
        """Wait until the process has ended; its exit status."""
        eventually(lambda: self.poll() is not None, lambda: len(self.output))
        return self.popen.returncode


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
    process = Process(popen, log)
    with shown_log(log):
        try:
            yield process
        finally:
            popen.terminate()
            try:
                process.await_end()
            except AssertionError:
                os.killpg(popen.pid, signal.SIGKILL)
                popen.wait()
                raise
