"""Scribes as the Procfile runs it, with people who use it over HTTP."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psutil
import requests
from django.conf import settings
from django.core.management import call_command

from notes.models import Note
from scribes.embedded.ports import free_port
from scribes.models import User

PASSWORD = "correct horse battery"
# Clients that ask more often would take a core themselves.
POLL_SECONDS = 0.05
PROGRAMS = Path(sys.executable).parent
WEB, WORKER, BEAT = (
    line.partition(": ")[2].split()
    for line in (settings.BASE_DIR / "Procfile").read_text().splitlines()[:3]
)

T = TypeVar("T")


def wait_until(read: Callable[[], T], limit: float = 600) -> T:
    """The first true value of `read`."""
    deadline = time.monotonic() + limit
    while not (value := read()):
        assert time.monotonic() < deadline, f"not within {limit} s"
        time.sleep(POLL_SECONDS)
    return value


class Person:
    """Somebody with an account, who sends JSON over one connection."""

    def __init__(self, url: str, email: str) -> None:
        self.url = url
        self.session = requests.Session()
        account = {"email": email, "password": PASSWORD}
        meta = self.call("POST", "/auth/signup", account)["meta"]
        self.session.headers["Authorization"] = f"Bearer {meta['access_token']}"
        self.user = User.objects.get(email=email)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The decoded answer. Asserts that it is not an error."""
        answer = self.session.request(method, self.url + path, json=body, timeout=300)
        assert answer.ok, answer.text
        return answer.json()


class Scribes:
    """The running processes."""

    def __init__(self, port: int, processes: list[subprocess.Popen[bytes]]) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.web, self.worker, self.beat = map(psutil.Process, [p.pid for p in processes])
        self._people = 0

    def person(self) -> Person:
        self._people += 1
        return Person(self.url, f"person{self._people}.{time.time_ns()}@example.com")

    def web_processes(self) -> list[psutil.Process]:
        """The processes that answer requests."""
        return self.web.children()


@contextmanager
def running_scribes(**variables: str) -> Iterator[Scribes]:
    """Web, worker and beat on an empty database, for the length of a with block."""
    empty_database()
    port = free_port()
    commands = [[part.replace("$PORT", str(port)) for part in WEB], WORKER, BEAT]
    processes = [_start(command, port, variables) for command in commands]
    try:
        wait_until(lambda: _answers(f"http://127.0.0.1:{port}/health/ready"))
        yield Scribes(port, processes)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


def empty_database() -> None:
    call_command("migrate", verbosity=0)
    call_command("flush", interactive=False, verbosity=0)


def _start(command: list[str], port: int, variables: dict[str, str]) -> subprocess.Popen[bytes]:
    program = shutil.which(command[0], path=str(PROGRAMS)) or command[0]
    log = (
        settings.DATA_DIR
        / f"load-{Path(command[-1]).name if command[0] == 'celery' else command[0]}.log"
    )
    environment = {
        "PORT": str(port),
        "PUBLIC_URL": f"http://127.0.0.1:{port}",
        "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}",
    }
    with log.open("ab") as output:
        return subprocess.Popen(
            [program, *command[1:]],
            env=os.environ | environment | variables,
            cwd=settings.BASE_DIR,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=10).ok
    except requests.RequestException:
        return False


# --- Rows -----------------------------------------------------------------------------------


def write_notes(user: User, contents: list[str]) -> list[Note]:
    """Notes with these contents, which nobody embeds."""
    from notes.models import text_hash

    notes = [Note(user=user, title=f"Note {n}", content=text) for n, text in enumerate(contents, 1)]
    for note in notes:
        note.text_hash = text_hash(note)
    return Note.objects.bulk_create(notes, batch_size=1000)
