"""Flower for tests: a real process and what it shows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from scribes.embedded.ports import free_port
from tests.helpers.processes import (
    LONGEST_WAIT_SECONDS,
    Process,
    environment,
    eventually,
    running,
)

SIGN_IN = ("operator", "open sesame")


class Flower:
    def __init__(self, url: str, process: Process) -> None:
        self.url = url
        self.process = process

    def get(self, path: str, sign_in: tuple[str, str] | None = SIGN_IN) -> requests.Response:
        return requests.get(self.url + path, auth=sign_in, timeout=LONGEST_WAIT_SECONDS)

    def tasks(self) -> dict[str, str]:
        """The state of each task that a worker has taken, by its label: "name: arguments"."""
        tasks = self.get("/api/tasks").json().values()
        return {f"{t['name']}: {t['args']}": t["state"] for t in tasks if t.get("worker")}

    def await_success(self, labels: set[str]) -> None:
        """Wait until Flower shows that the tasks with these labels succeeded."""
        expected = dict.fromkeys(labels, "SUCCESS")
        eventually(lambda: expected.items() <= self.tasks().items(), self.tasks)

    def is_up(self) -> bool:
        try:
            return self.get("/healthcheck").ok
        except requests.ConnectionError:
            return False


@contextmanager
def flower_process(folder: Path) -> Iterator[Flower]:
    """`celery -A scribes flower` with its data in `folder`, ready for requests."""
    port = free_port()
    variables = {
        "DATA_DIR": str(folder),
        "FLOWER_PORT": str(port),
        "FLOWER_BASIC_AUTH": ":".join(SIGN_IN),
    }
    command = ["celery", "-A", "scribes", "flower"]
    with running(command, folder / "flower.log", environment(**variables)) as process:
        flower = Flower(f"http://127.0.0.1:{port}", process)
        eventually(flower.is_up, process=process)
        yield flower
