"""/health/ready, and what doctor says, of real processes that are stopped, deafened and revived."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
import requests
from celery import current_app
from pytest_django import DjangoDbBlocker

from scribes.health import KEEP_SECONDS
from scribes.models import Heartbeat, User
from tests.conftest import Web, forget_queues
from tests.processes import MANAGE, Process, environment, eventually, free_port, running

pytestmark = pytest.mark.django_db

QUICK = {"HEARTBEAT_SECONDS": "1", "WORKER_CONCURRENCY": "1"}


class House:
    """Web, beat and a worker, which are well, and somebody of the staff who looks at them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stack = ExitStack()
        self.stopping = ExitStack()
        self.env = environment(**QUICK)
        self.worker = self.run("worker", *MANAGE, "run_worker", "--", "-n", "health@%h")
        self.beat = self.run("beat", "celery", "-A", "scribes", "beat")
        self.web = Web(f"http://127.0.0.1:{self.serve(**QUICK)}")
        eventually(lambda: lives(self.web))
        self.staff = self.sign_in()

    def run(self, name: str, *command: str) -> Process:
        log = self.folder / f"{name}.log"
        return self.start(log, list(command), self.env)

    def start(self, log: Path, command: list[str], env: dict[str, str]) -> Process:
        process = self.stack.enter_context(running(command, log, env))
        # All at once, before each of them is awaited.
        self.stopping.callback(process.popen.terminate)
        return process

    def serve(self, **variables: str) -> int:
        port = free_port()
        command = f"gunicorn scribes.wsgi --bind 127.0.0.1:{port} --threads 8".split()
        log = self.folder / f"web-{port}.log"
        self.start(log, command, environment(**variables))
        return port

    def sign_in(self) -> requests.Session:
        browser = requests.Session()
        page = f"{self.web.url}/admin/login/"
        browser.get(page)
        form = {"username": "staff@example.com", "password": "a password of the staff"}
        token = {"csrfmiddlewaretoken": browser.cookies["csrftoken"]}
        assert browser.post(page, data=form | token).ok
        return browser

    def fault(self, name: str) -> dict[str, str]:
        """What staff read of it, once it is there."""

        def look() -> dict[str, str]:
            checks = self.staff.get(f"{self.web.url}/health/ready", timeout=10).json()["checks"]
            return next((c for c in checks if c["name"] == name and c["state"] == "fault"), {})

        return eventually(look, timeout=30)

    def ready(self) -> requests.Response:
        answer: requests.Response = self.web.get("/health/ready")
        return answer

    def is_well(self) -> bool:
        return bool(self.ready().status_code == 200)


@pytest.fixture(scope="module")
def house(
    django_db_setup: None,
    django_db_blocker: DjangoDbBlocker,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[House]:
    with django_db_blocker.unblock():
        staff = User.objects.create_superuser("staff@example.com", "a password of the staff")
        house = House(tmp_path_factory.mktemp("house"))
        with house.stack, house.stopping:
            yield house
        staff.delete()
        Heartbeat.objects.all().delete()
    forget_queues()


def test_everything_is_well(house: House):
    eventually(house.is_well)
    assert house.ready().json() == {"status": "ok", "faults": []}
    command = [*MANAGE, "doctor", "--json"]
    result = subprocess.run(command, env=house.env, capture_output=True, text=True, timeout=60)
    reports = {report["name"]: report for report in json.loads(result.stdout)}
    # No mail server runs in this test.
    assert [r["name"] for r in reports.values() if r["state"] != "ok"] == ["mail server"]
    assert reports["workers"]["what"] == "all of default, embeddings, reminders are consumed"


def test_the_worker_is_a_worker_and_no_child_of_one(house: House):
    """run_worker has become it, so that signals reach it."""
    eventually(house.is_well)
    assert "celery" in psutil.Process(house.worker.popen.pid).cmdline()
    assert "is ready" in house.worker.output


def test_a_beat_that_hangs(house: House):
    eventually(house.is_well)
    house.beat.popen.send_signal(signal.SIGSTOP)
    fault = house.fault("beat")
    stranger = house.ready()
    house.beat.popen.send_signal(signal.SIGCONT)
    assert "Beat has not looked at its timetable for" in fault["what"]
    assert "systemctl restart scribes-beat" in fault["mend"]
    assert stranger.status_code == 503
    assert stranger.json() == {"status": "fault", "faults": ["beat"]}
    assert "no-cache" in stranger.headers["Cache-Control"]


def test_an_answer_within_a_second_when_nothing_else_answers(house: House):
    """A PostgreSQL and a Redis that take connections and say nothing, which is worse than being gone."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        urls = {
            "DATABASE_URL": f"postgresql://u:p@127.0.0.1:{port}/db",
            "REDIS_URL": f"redis://127.0.0.1:{port}/0",
        }
        web = Web(f"http://127.0.0.1:{house.serve(**urls)}")
        eventually(lambda: lives(web))
        assert_quick_and_unready(web)


def test_a_worker_that_is_deaf_then_hangs_then_is_dead(house: House):
    """Last in this file: afterwards there is none."""
    eventually(house.is_well)
    current_app.control.cancel_consumer("reminders")
    fault = house.fault("workers")
    assert "No worker has taken anything from the queue reminders for" in fault["what"]
    assert "embeddings" not in fault["what"]
    assert re.search(r"health@\S+ answers, but takes nothing", fault["where"])
    assert "systemctl restart scribes-worker" in fault["mend"]
    family = psutil.Process(house.worker.popen.pid).children(recursive=True)
    house.worker.popen.send_signal(signal.SIGSTOP)
    eventually(lambda: "no worker answers" in house.fault("workers")["where"])
    house.worker.popen.kill()
    for process in family:
        process.kill()
    assert "no worker answers" in house.fault("workers")["where"]


def lives(web: Web) -> bool:
    try:
        return bool(web.get("/health/live").ok)
    except requests.ConnectionError:
        return False


def assert_quick_and_unready(web: Web) -> None:
    # A session's cookie would have the database asked who that is.
    web.session.cookies["sessionid"] = "a" * 32
    for _ in range(2):
        time.sleep(KEEP_SECONDS)  # until a new look is due
        start = time.monotonic()
        answer = web.get("/health/ready")
        assert time.monotonic() - start < 1
        assert answer.status_code == 503
        assert {"PostgreSQL", "Redis"} <= set(answer.json()["faults"])
        assert "checks" not in answer.json()
