"""Flower for tests: a process of its own, and what it says."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from tests.processes import Process, environment, eventually, free_port, running

SIGN_IN = ("operator", "open sesame")


class Flower:
    def __init__(self, url: str, process: Process) -> None:
        self.url = url
        self.process = process

    def get(self, path: str, sign_in: tuple[str, str] | None = SIGN_IN) -> requests.Response:
        return requests.get(self.url + path, auth=sign_in, timeout=30)

    def tasks(self) -> dict[str, str]:
        """Of each task that has a worker: "name arguments", and its state."""
        tasks = self.get("/api/tasks").json().values()
        return {f"{t['name']} {t['args']}": t["state"] for t in tasks if t.get("worker")}

    def await_success(self, names: set[str]) -> None:
        """Of these tasks."""
        wanted = dict.fromkeys(names, "SUCCESS")
        with contextlib.suppress(AssertionError):
            eventually(lambda: wanted.items() <= self.tasks().items())
        assert wanted.items() <= self.tasks().items(), self.tasks()

    def is_up(self) -> bool:
        assert self.process.popen.poll() is None, self.process.output
        try:
            return self.get("/healthcheck").ok
        except requests.ConnectionError:
            return False


@contextmanager
def flower_process(folder: Path) -> Iterator[Flower]:
    port = free_port()
    own = {
        "DATA_DIR": str(folder),
        "FLOWER_PORT": str(port),
        "FLOWER_BASIC_AUTH": ":".join(SIGN_IN),
    }
    with running(["celery", "-A", "scribes", "flower"], folder / "log", environment(**own)) as it:
        flower = Flower(f"http://127.0.0.1:{port}", it)
        eventually(flower.is_up)
        yield flower
