"""A real browser: the system's chromium, driven by Playwright.

`pytest tests/browser --screenshots docs/images` also takes the pictures of the documentation.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.core.management import call_command
from django.db import connection, connections
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright
from pytest_django import DjangoDbBlocker

from jobs.models import JobOutcomes
from scribes.models import Heartbeat, User
from tests.helpers.browser import PASSWORD, PATIENCE_MILLISECONDS, SIZE, TakePicture
from tests.helpers.processes import Process
from tests.helpers.servers import Web, web_process, worker_process

# Chromium has no sandbox for root, and contacts other machines without the second option.
ARGUMENTS = ["--no-sandbox", "--disable-background-networking", "--disable-dev-shm-usage"]


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no chromium is installed: apt-get install --no-install-recommends chromium")
    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        # Playwright has an event loop in this thread. It does not run while a test's own code does,
        # but Django sees it and would refuse every query.
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        expect.set_options(timeout=PATIENCE_MILLISECONDS)
        browser = playwright.chromium.launch(
            executable_path=path, args=ARGUMENTS, timeout=PATIENCE_MILLISECONDS
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A new window without cookies. The test fails if the page requests anything from another
    machine, or if one of its scripts raises an error."""
    context = browser.new_context(viewport=SIZE, reduced_motion="reduce")
    context.set_default_timeout(PATIENCE_MILLISECONDS)
    faults: list[str] = []
    context.route(lambda url: urlsplit(url).hostname != "127.0.0.1", _refuse(faults))
    page = context.new_page()
    page.on("pageerror", lambda error: faults.append(f"{page.url}: {error}"))
    yield page
    context.close()
    assert faults == []


def _refuse(faults: list[str]) -> Callable[[Route], None]:
    def refuse(route: Route) -> None:
        faults.append(f"requests {route.request.url}")
        route.abort()

    return refuse


# --- Processes and rows ---------------------------------------------------------------------


@pytest.fixture(scope="package")
def shared_database(
    browser: Browser, django_db_setup: None, django_db_blocker: DjangoDbBlocker
) -> Iterator[None]:
    """A database whose rows are committed, so that other processes see them.

    The browser must start first and end last: while its event loop exists, Django uses a separate
    connection for it.
    """
    with django_db_blocker.unblock():
        assert connection.settings_dict["NAME"].startswith("test_")
        yield
        call_command("flush", interactive=False, verbosity=0)
        connections.close_all()


@pytest.fixture
def transactional_db(shared_database: None) -> None:
    """Replaces pytest-django's fixture, which flushes after each test.

    pytest-django creates a test database only if a test uses a fixture of this name. Without it, these
    tests would use the real database.
    """


@pytest.fixture
def database(transactional_db: None) -> Iterator[None]:
    """Deletes all rows after the test. A flush would give new ids to the content types, which the web
    process has cached."""
    yield
    for model in (User, Heartbeat, JobOutcomes):
        model.objects.all().delete()


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="package")
def shared_web(shared_database: None, folder: Path) -> Iterator[Web]:
    with web_process(folder) as web:
        yield web


@pytest.fixture
def web(database: None, shared_web: Web) -> Web:
    """The shared web process, with nobody signed in."""
    shared_web.session.headers.pop("Authorization", None)
    shared_web.session.cookies.clear()
    return shared_web


@pytest.fixture(scope="package")
def shared_worker(shared_database: None, folder: Path) -> Iterator[Process]:
    """A worker that knows the tests' own job type, has small batches, and writes each heartbeat."""
    variables = {"JOB_BATCH_SIZE": "5", "JOB_PARALLELISM": "1", "HEARTBEAT_SECONDS": "0"}
    options = ("--include", "tests.helpers.counting")
    with worker_process(folder, "browsed", *options, **variables) as process:
        yield process


@pytest.fixture
def worker(database: None, shared_worker: Process) -> Process:
    return shared_worker


# --- People ---------------------------------------------------------------------------------


@pytest.fixture
def operator(database: None) -> User:
    """A superuser."""
    return User.objects.create_superuser("operator@example.com", PASSWORD)


@pytest.fixture
def take_picture(request: pytest.FixtureRequest) -> TakePicture:
    """take_picture(page, "admin-jobs") writes {FOLDER}/admin-jobs.png with --screenshots FOLDER, and
    does nothing without that option."""
    folder: Path | None = request.config.getoption("--screenshots")

    def take(page: Page, name: str) -> None:
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
            page.wait_for_load_state("networkidle")
            page.evaluate("document.fonts.ready")
            picture = Image.open(BytesIO(page.screenshot(animations="disabled")))
            # A third of the size, without a visible difference.
            small = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
            small.save(folder / f"{name}.png", optimize=True)

    return take
