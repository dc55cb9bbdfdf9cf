"""The admin's front page when something is missing, and the admin without its look."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings

from jobs.models import BackgroundJob
from scribes.models import User
from tests.conftest import Web, web_process
from tests.jobs.conftest import make_job
from tests.processes import environment

PASSWORD = "correct horse battery"


@pytest.fixture
def operator(transactional_db: None) -> User:
    return User.objects.create_superuser("operator@example.com", PASSWORD)


@pytest.fixture
def hanging_redis() -> Iterator[str]:
    """It takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"


def sign_in(web: Web, user: User) -> None:
    login = "/admin/login/"
    web.get(login)
    token = web.session.cookies["csrftoken"]
    form = {"username": user.email, "password": PASSWORD, "csrfmiddlewaretoken": token}
    assert web.post(login, data=form, allow_redirects=False).status_code == 302


def test_the_front_page_comes_within_a_second_while_redis_hangs(
    operator: User, hanging_redis: str, tmp_path: Path
):
    with web_process(tmp_path, REDIS_URL=hanging_redis) as web:
        sign_in(web, operator)
        begun = time.monotonic()
        html = " ".join(web.get("/admin/").text.split())
        assert time.monotonic() - begun < 1.5
    queues = html.split('aria-label="Queues"')[1].split("</section>")[0]
    assert "<b>unknown</b>: no answer within 0.7 s" in queues
    assert "<dt>running</dt>" in html


WITHOUT_UNFOLD = """
import sys
sys.modules["unfold"] = None
import django
django.setup()
from django.test import Client
from scribes.models import User
client = Client(SERVER_NAME="localhost")
client.force_login(User.objects.get())
for path in sys.argv[1:]:
    response = client.get(path)
    print(response.status_code, response.content.decode())
"""


def test_the_admin_is_readable_without_unfold(operator: User):
    job = make_job(operator, status="running", total_items=9, processed_items=3)
    jobs = "/admin/jobs/backgroundjob/"
    paths = ["/admin/", jobs, f"{jobs}{job.pk}/change/", "/admin/scribes/user/add/"]
    pages = _without_unfold(paths)
    assert "unfold" not in pages
    assert pages.count('aria-valuenow="33"') == 2
    for words in ("3/9 · 33 %", "Needs attention <b>0</b>", "coverage", "/operate/cancel/"):
        assert words in pages
    assert BackgroundJob.objects.get().status == "running"


def _without_unfold(paths: list[str]) -> str:
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_UNFOLD, *paths],
        env=environment(),
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("200 <!DOCTYPE html>") == len(paths), result.stdout[:300]
    return result.stdout
