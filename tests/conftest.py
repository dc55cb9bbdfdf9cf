from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from rest_framework.test import APIClient

from notes.embeddings.encoder import encoder
from scribes.embedded import supervisor
from scribes.models import User
from tests.helpers.people import client_of
from tests.helpers.processes import Process
from tests.helpers.servers import Web, delete_queues, web_process, worker_process


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run all of tests/chaos")
    parser.addoption("--quality", action="store_true", help="run tests/quality (minutes)")
    parser.addoption(
        "--screenshots", type=Path, metavar="FOLDER", help="save tests/browser's pictures there"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Use a temporary folder of this run alone; `--basetemp FOLDER` names one that is kept.

    All runs of a user share pytest's own folder, and each run closes it to other users as it starts.
    If root runs the tests, PostgreSQL is such a user, and could not open its files by their full path.
    """
    if not config.option.basetemp:
        config.option.basetemp = folder = tempfile.mkdtemp(prefix="scribes-tests-")
        config.add_cleanup(partial(shutil.rmtree, folder, ignore_errors=True))


# --- Servers --------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def servers() -> Iterator[None]:
    """Run PostgreSQL and Valkey, unless the environment names servers to use."""
    with supervisor.running(
        settings.DATA_DIR,
        with_postgres=not settings.DATABASE_URL_IS_SET,
        with_valkey=not settings.REDIS_URL_IS_SET,
    ):
        # Otherwise the first worker or web process of a new checkout would do this within its time-out.
        encoder().prepare()
        yield
        delete_queues()


@pytest.fixture(scope="session")
def django_db_modify_db_settings(servers: None) -> None:
    """pytest-django creates the test database after this, so the server is running by then."""


@pytest.fixture
def run_on_commit(
    django_capture_on_commit_callbacks,
) -> Callable[[], AbstractContextManager[list[Callable[[], Any]]]]:
    """run_on_commit(): a block after which on_commit callbacks run, as if it had been committed."""
    return lambda: django_capture_on_commit_callbacks(execute=True)


# --- People ---------------------------------------------------------------------------------


@pytest.fixture
def alice(db: None) -> User:
    """She owns what a test is about."""
    return User.objects.create_user("alice@example.com")


@pytest.fixture
def bob(db: None) -> User:
    """He owns other things and must never see alice's."""
    return User.objects.create_user("bob@example.com")


@pytest.fixture
def api(alice: User) -> APIClient:
    """alice's client."""
    return client_of(alice)


@pytest.fixture
def bobs_api(bob: User) -> APIClient:
    return client_of(bob)


# --- Processes ------------------------------------------------------------------------------


@pytest.fixture
def worker(transactional_db: None, tmp_path: Path) -> Iterator[Process]:
    with worker_process(tmp_path, "first") as process:
        yield process


@pytest.fixture
def web(transactional_db: None, tmp_path: Path) -> Iterator[Web]:
    with web_process(tmp_path) as web:
        yield web
