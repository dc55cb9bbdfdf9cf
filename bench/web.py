"""A web process as the Procfile starts it, the bare view beside ours, and clients."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, RemoteDisconnected
from typing import Any, NamedTuple

import requests
from django.conf import settings

from scribes.models import User
from tests.processes import Process, environment, eventually, free_port, running

GUNICORN = "gunicorn scribes.wsgi --bind 127.0.0.1:{port} --workers 2 --threads 4"
PASSWORD = "correct horse battery"


class Web(NamedTuple):
    port: int
    process: Process


@contextmanager
def serving_web() -> Iterator[Web]:
    """Ready to answer."""
    port = free_port()
    env = environment(DJANGO_SETTINGS_MODULE="bench.settings")
    with running(GUNICORN.format(port=port).split(), settings.DATA_DIR / "web.log", env) as web:
        eventually(lambda: _answers(port))
        yield Web(port, web)


def _answers(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}", timeout=5).ok
    except requests.ConnectionError:
        return False


class Client:
    """JSON over one connection that is kept: as little as a client can cost."""

    def __init__(self, port: int, token: str = "") -> None:
        self.port = port
        self._connection = HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers = {"Content-Type": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The decoded answer. Asserts that it is none of an error."""
        data = None if body is None else json.dumps(body)
        try:
            self._connection.request(method, path, data, self._headers)
            response = self._connection.getresponse()
        except (RemoteDisconnected, ConnectionError):  # gunicorn keeps idle ones for two seconds
            self._connection.close()
            self._connection.request(method, path, data, self._headers)
            response = self._connection.getresponse()
        answer = response.read()
        assert response.status < 400, answer
        return json.loads(answer)


def sign_up(port: int, email: str) -> tuple[User, str]:
    """A new user, and a token."""
    account = {"email": email, "password": PASSWORD}
    answer = Client(port).call("POST", "/auth/signup", account)
    return User.objects.get(email=email), answer["meta"]["access_token"]
