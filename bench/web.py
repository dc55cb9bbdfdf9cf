"""A web process as the Procfile starts it, with a bare view beside those of Scribes, and its clients."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, RemoteDisconnected
from typing import Any, NamedTuple

import requests

from bench.processes import Process, eventually, running
from scribes.embedded.ports import free_port
from scribes.models import User

GUNICORN = "gunicorn -c python:scribes.serving.config scribes.asgi --bind 127.0.0.1:{port}"
PASSWORD = "correct horse battery"


class Web(NamedTuple):
    port: int
    process: Process


@contextmanager
def web_process() -> Iterator[Web]:
    """A web process that answers."""
    port = free_port()
    command = GUNICORN.format(port=port).split()
    with running("web", command, DJANGO_SETTINGS_MODULE="bench.settings") as process:
        eventually(lambda: _answers(port))
        yield Web(port, process)


def _answers(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}", timeout=5).ok
    except requests.RequestException:
        return False


class Client:
    """Sends JSON over one connection that is kept open, with as little overhead as possible."""

    def __init__(self, port: int, token: str = "") -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers = {"Content-Type": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The decoded answer. Asserts that it is not an error."""
        data = None if body is None else json.dumps(body)
        try:
            status, answer = self._request(method, path, data)
        except (RemoteDisconnected, ConnectionError):  # it was idle for too long
            self._connection.close()
            status, answer = self._request(method, path, data)
        assert status < 400, answer
        return json.loads(answer)

    def _request(self, method: str, path: str, data: str | None) -> tuple[int, bytes]:
        self._connection.request(method, path, data, self._headers)
        response = self._connection.getresponse()
        return response.status, response.read()


def sign_up(port: int, email: str) -> tuple[User, str]:
    """A new user and an access token."""
    account = {"email": email, "password": PASSWORD}
    answer = Client(port).call("POST", "/auth/signup", account)
    return User.objects.get(email=email), answer["meta"]["access_token"]
