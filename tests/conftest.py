from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
import requests
from django.conf import settings
from rest_framework.test import APIClient

from scribes import embedded
from scribes.models import User
from tests.processes import Process, environment, eventually, free_port, running


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="tests/chaos: the whole of it")
    parser.addoption("--quality", action="store_true", help="tests/quality, which takes minutes")
    parser.addoption("--screenshots", type=Path, metavar="FOLDER", help="tests/browser: save there")


# --- Servers --------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def servers() -> Iterator[None]:
    """PostgreSQL and Valkey: the ones that the environment names, or embedded ones."""
    with embedded.running(
        settings.DATA_DIR,
        postgres=not settings.DATABASE_URL_IS_SET,
        valkey=not settings.REDIS_URL_IS_SET,
    ):
        yield
        forget_queues()


def forget_queues() -> None:
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        for key in client.scan_iter(f"{settings.REDIS_KEY_PREFIX}*"):
            client.delete(key)


@pytest.fixture(scope="session")
def django_db_modify_db_settings(servers: None) -> None:
    """pytest-django makes the test database after this, so the server is there by then."""


# --- People ---------------------------------------------------------------------------------


@pytest.fixture
def alice(db: None) -> User:
    """She owns what a test is about."""
    return User.objects.create_user("alice@example.com")


@pytest.fixture
def bob(db: None) -> User:
    """He owns other things, and must never see alice's."""
    return User.objects.create_user("bob@example.com")


def client_of(user: User | None) -> APIClient:
    client = APIClient(raise_request_exception=False)
    client.force_authenticate(user)
    return client


@pytest.fixture
def api(alice: User) -> APIClient:
    """alice's client."""
    return client_of(alice)


@pytest.fixture
def bobs_api(bob: User) -> APIClient:
    return client_of(bob)


# --- Processes ------------------------------------------------------------------------------


@contextmanager
def worker_process(folder: Path, name: str, *options: str, **variables: str) -> Iterator[Process]:
    """`celery -A scribes worker` with one process in its pool, ready for messages."""
    command = ["celery", "-A", "scribes", "worker", "-n", f"{name}@%h", *options]
    env = environment(WORKER_CONCURRENCY="1", **variables)
    with running(command, folder / f"{name}.log", env) as worker:
        worker.await_output("is ready")
        yield worker


@pytest.fixture
def worker(transactional_db: None, tmp_path: Path) -> Iterator[Process]:
    with worker_process(tmp_path, "first") as process:
        yield process


class Web:
    """The API as somebody meets it over HTTP."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.session = requests.Session()

    def __getattr__(self, method: str):
        """web.get("/notes"), web.post("/notes", json=…), and so on: the response."""

        def call(path: str, **arguments) -> requests.Response:
            return self.session.request(method, self.url + path, timeout=60, **arguments)

        return call

    def sign_up(self, email: str, password: str = "correct horse battery") -> None:
        account = {"email": email, "password": password}
        answer = self.post("/auth/signup", json=account).json()
        self.session.headers["Authorization"] = f"Bearer {answer['meta']['access_token']}"


@contextmanager
def web_process(folder: Path, **variables: str) -> Iterator[Web]:
    """A web process, started as the Procfile starts it."""
    port = free_port()
    command = f"gunicorn scribes.wsgi --bind 127.0.0.1:{port} --threads 4".split()
    with running(command, folder / "web.log", environment(**variables)) as process:
        url = f"http://127.0.0.1:{port}"
        eventually(lambda: _answers(process, url))
        web = Web(url)
        yield web
        # gunicorn waits for connections that are open.
        web.session.close()


@pytest.fixture
def web(transactional_db: None, tmp_path: Path) -> Iterator[Web]:
    with web_process(tmp_path) as web:
        yield web


def _answers(process: Process, url: str) -> bool:
    assert process.popen.poll() is None, process.output
    try:
        return requests.get(url, timeout=5).ok
    except requests.ConnectionError:
        return False
