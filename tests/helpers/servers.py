"""Real worker and web processes for tests, and servers that misbehave."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
import requests
from django.conf import settings

from scribes.embedded.ports import free_port
from tests.helpers.processes import (
    LONGEST_WAIT_SECONDS,
    Process,
    environment,
    eventually,
    running,
)


def delete_queues() -> None:
    """Delete everything that this test run has in Redis."""
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        for key in client.scan_iter(f"{settings.REDIS_KEY_PREFIX}*"):
            client.delete(key)


@contextmanager
def silent_server() -> Iterator[int]:
    """A server that accepts connections and never answers; its port on 127.0.0.1."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@contextmanager
def worker_process(folder: Path, name: str, *options: str, **variables: str) -> Iterator[Process]:
    """`celery -A scribes worker` with one process in its pool, ready for messages."""
    command = ["celery", "-A", "scribes", "worker", "-n", f"{name}@%h", *options]
    env = environment(WORKER_CONCURRENCY="1", **variables)
    with running(command, folder / f"{name}.log", env) as worker:
        worker.await_output("is ready")
        yield worker


class Web:
    """The API over HTTP."""

    process: Process
    """Set by web_process."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.session = requests.Session()

    def __getattr__(self, method: str):
        """web.get("/notes"), web.post("/notes", json=…), and so on: the response."""

        def call(path: str, **arguments) -> requests.Response:
            return self.session.request(
                method, self.url + path, timeout=LONGEST_WAIT_SECONDS, **arguments
            )

        return call

    def sign_up(self, email: str, password: str = "correct horse battery") -> None:
        """Create an account, and send its bearer token with each request."""
        account = {"email": email, "password": password}
        answer = self.post("/auth/signup", json=account).json()
        self.session.headers["Authorization"] = f"Bearer {answer['meta']['access_token']}"

    def sign_in_to_admin(self, email: str, password: str, page: str = "/admin/") -> str:
        """Sign in with the admin's form, which leads to `page`; its HTML."""
        login = f"/admin/login/?next={page}"
        assert self.get(login).ok
        token = self.session.cookies["csrftoken"]
        form = {"username": email, "password": password, "csrfmiddlewaretoken": token}
        answer = self.post(login, data=form, allow_redirects=False)
        assert (answer.status_code, answer.headers["Location"]) == (302, page), answer.text
        return str(self.get(page).text)

    def is_up(self) -> bool:
        try:
            return bool(self.get("/health/live").ok)
        except requests.ConnectionError:
            return False


@contextmanager
def web_process(folder: Path, **variables: str) -> Iterator[Web]:
    """A web process, started as the Procfile starts it."""
    port = free_port()
    command = (
        f"gunicorn -c python:scribes.serving.config scribes.asgi --bind 127.0.0.1:{port}".split()
    )
    env = environment(**{"WEB_PROCESSES": "1"} | variables)
    with running(command, folder / f"web-{port}.log", env) as process:
        web = Web(f"http://127.0.0.1:{port}")
        web.process = process
        eventually(web.is_up, process=process)
        yield web
        web.session.close()
