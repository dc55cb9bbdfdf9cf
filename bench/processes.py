"""Processes that a benchmark starts on its own database and queues."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import psutil
from django.conf import settings
from django.db import connection

STOP_TIMEOUT_SECONDS = 60
MEGABYTE = 1024 * 1024

T = TypeVar("T")


def eventually(look: Callable[[], T], timeout: float = 60) -> T:
    """The first true value of `look`. Asserts that it comes within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (value := look()):
        assert time.monotonic() < deadline, f"not within {timeout} s: {value!r}"
        time.sleep(0.05)
    return value


def environment(**variables: str) -> dict[str, str]:
    """The environment of a process that uses the benchmark's database."""
    url = urlsplit(settings.DATABASE_URL)
    name = connection.settings_dict["NAME"]
    # urlunsplit would drop the empty host of a URL with a socket.
    database = f"{url.scheme}://{url.netloc}/{name}" + (f"?{url.query}" if url.query else "")
    programs = Path(sys.executable).parent
    return os.environ | {
        "DATABASE_URL": database,
        "REDIS_URL": settings.REDIS_URL,
        "DJANGO_SETTINGS_MODULE": "scribes.settings",
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONUNBUFFERED": "1",
        **variables,
    }


class Process:
    """A running process and its log."""

    def __init__(self, popen: subprocess.Popen[bytes], log: Path) -> None:
        self.popen = popen
        self.log = log

    def await_output(self, text: str) -> None:
        def has_output() -> bool:
            assert self.popen.poll() is None, f"it ended:\n{self.log.read_text()}"
            return text in self.log.read_text()

        eventually(has_output)

    def family(self) -> list[psutil.Process]:
        """The process and all its children."""
        parent = psutil.Process(self.popen.pid)
        return [parent, *parent.children(recursive=True)]

    def pss_mb(self) -> float:
        """The memory of the family in MB. Pages that processes share are divided among them (PSS)."""
        return sum(member.memory_full_info().pss for member in self.family()) / MEGABYTE

    def rss_mb(self) -> float:
        """The memory of the family in MB. Shared pages count fully for each process (RSS)."""
        return sum(member.memory_info().rss for member in self.family()) / MEGABYTE


@contextmanager
def running(name: str, command: list[str], **variables: str) -> Iterator[Process]:
    """Run a command for the length of a with block. It logs to <name>.log in the data folder."""
    log = settings.DATA_DIR / f"{name}.log"
    with log.open("wb") as output:
        popen = subprocess.Popen(
            command,
            env=environment(**variables),
            cwd=settings.BASE_DIR,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Process(popen, log)
    finally:
        popen.terminate()
        popen.wait(STOP_TIMEOUT_SECONDS)
