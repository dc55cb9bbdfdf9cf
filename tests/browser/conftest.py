"""A real browser: the chromium of the system, driven by Playwright.

`pytest tests/browser --screenshots docs/images` also makes the pictures of the documentation.
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
from playwright.sync_api import Browser, Page, Route, ViewportSize, sync_playwright
from pytest_django import DjangoDbBlocker

from jobs.models import JobOutcomes
from scribes.models import Heartbeat, User
from tests.helpers.servers import Web, web_process, worker_process
from tests.helpers.processes import Process

PASSWORD = "correct horse battery"
SIZE = ViewportSize(width=1280, height=800)
# It runs as root in containers, and calls home otherwise.
ARGUMENTS = ["--no-sandbox", "--disable-background-networking", "--disable-dev-shm-usage"]

TakePicture = Callable[[Page, str], None]


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no chromium is installed: apt-get install --no-install-recommends chromium")
    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        # Playwright's event loop stands still in this thread while a test's own code runs, but
        # it is there, and Django takes any query then for one that would block it.
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A new window without cookies. The test fails where the page wants anything from another
    machine, or where a script of it does."""
    context = browser.new_context(viewport=SIZE, reduced_motion="reduce")
    context.set_default_timeout(20_000)
    faults: list[str] = []
    context.route(lambda url: urlsplit(url).hostname != "127.0.0.1", _refuse(faults))
    page = context.new_page()
    page.on("pageerror", lambda error: faults.append(f"{page.url}: {error}"))
    yield page
    context.close()
    assert faults == []


def _refuse(faults: list[str]) -> Callable[[Route], None]:
    def refuse(route: Route) -> None:
        faults.append(f"asks for {route.request.url}")
        route.abort()

    return refuse


# --- Processes and rows ---------------------------------------------------------------------


@pytest.fixture(scope="package")
def shared_database(
    browser: Browser, django_db_setup: None, django_db_blocker: DjangoDbBlocker
) -> Iterator[None]:
    """Rows are committed, so that the processes see them.

    The browser comes first and goes last: while its event loop is there, Django has a connection
    of its own for it.
    """
    with django_db_blocker.unblock():
        assert connection.settings_dict["NAME"].startswith("test_")
        yield
        call_command("flush", interactive=False, verbosity=0)
        connections.close_all()


@pytest.fixture
def transactional_db(shared_database: None) -> None:
    """In place of pytest-django's, which flushes after each test. Where no test of a run asks for
    a fixture of this name, pytest-django makes no test database, and ours would be the real one."""


@pytest.fixture
def database(transactional_db: None) -> Iterator[None]:
    """Emptied after the test, but not by a flush: that would give the content types, which the
    web process remembers, new ids."""
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
    """It outlives the test, whose rows do not: everybody has to sign in again."""
    shared_web.session.headers.pop("Authorization", None)
    shared_web.session.cookies.clear()
    return shared_web


@pytest.fixture(scope="package")
def shared_worker(shared_database: None, folder: Path) -> Iterator[Process]:
    """It knows the tests' own job type, works in small steps, and tells of each heartbeat."""
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
    """Somebody who may do everything in the admin."""
    return User.objects.create_superuser("operator@example.com", PASSWORD)


def sign_in(page: Page, web: Web, user: User) -> None:
    """Through the admin's form; `user` has the password PASSWORD."""
    page.goto(f"{web.url}/admin/login/?next=/admin/")
    page.fill("input[name=username]", user.email)
    page.fill("input[name=password]", PASSWORD)
    page.click("[type=submit]")
    page.wait_for_url(f"{web.url}/admin/")


@pytest.fixture
def take_picture(request: pytest.FixtureRequest) -> TakePicture:
    """take_picture(page, "admin-jobs"): {FOLDER}/admin-jobs.png with --screenshots FOLDER, and
    nothing without."""
    folder: Path | None = request.config.getoption("--screenshots")

    def take(page: Page, name: str) -> None:
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
            page.wait_for_load_state("networkidle")
            page.evaluate("document.fonts.ready")
            picture = Image.open(BytesIO(page.screenshot(animations="disabled")))
            # A third of the size, and nobody sees it.
            small = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
            small.save(folder / f"{name}.png", optimize=True)

    return take
