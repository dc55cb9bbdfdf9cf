"""/health/ready and doctor, while real processes are stopped, made deaf and killed."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
import requests
from celery import current_app
from pytest_django import DjangoDbBlocker

from scribes.models import Heartbeat, User
from scribes.monitoring.probes.critical import KEEP_SECONDS
from tests.helpers.processes import (
    LONGEST_WAIT_SECONDS,
    MANAGE,
    Process,
    environment,
    eventually,
    manage,
    running,
)
from tests.helpers.servers import Web, delete_queues, web_process

pytestmark = pytest.mark.django_db

STAFF = ("staff@example.com", "a password of the staff")
QUICK = {"HEARTBEAT_SECONDS": "1", "WORKER_CONCURRENCY": "1"}


class Deployment:
    """Web, beat and a worker, and a client that is signed in as staff."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stack = ExitStack()
        self.stopping = ExitStack()
        self.start_worker()
        self.beat = self._start("beat", "celery", "-A", "scribes", "beat")
        self.web = self.stack.enter_context(web_process(folder, **QUICK))
        self.staff = Web(self.web.url)
        self.staff.sign_in_to_admin(*STAFF)

    def start_worker(self) -> None:
        self.worker = self._start("worker", *MANAGE, "run_worker", "--", "-n", "health@%h")

    def _start(self, name: str, *command: str) -> Process:
        """Start a process without waiting for it, so that several start at once."""
        log = self.folder / f"{name}.log"
        process = self.stack.enter_context(running(list(command), log, environment(**QUICK)))
        # They also end at once.
        self.stopping.callback(process.popen.terminate)
        return process

    def await_fault(self, name: str) -> dict[str, str]:
        """The report of this probe as staff see it, once it is a fault."""

        def read() -> dict[str, str]:
            probes: list[dict[str, str]] = self.staff.get("/health/ready").json()["probes"]
            faults = {p["name"]: p for p in probes if p["state"] == "fault"}
            return faults.get(name, {})

        return eventually(read)

    def ready(self) -> requests.Response:
        answer: requests.Response = self.web.get("/health/ready")
        return answer

    def is_ready(self) -> bool:
        return bool(self.ready().ok)


@pytest.fixture(scope="module")
def shared_deployment(
    django_db_setup: None,
    django_db_blocker: DjangoDbBlocker,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Deployment]:
    with django_db_blocker.unblock():
        staff = User.objects.create_superuser(*STAFF)
        deployment = Deployment(tmp_path_factory.mktemp("deployment"))
        with deployment.stack, deployment.stopping:
            yield deployment
        staff.delete()
        Heartbeat.objects.all().delete()
    delete_queues()


@pytest.fixture
def deployment(shared_deployment: Deployment) -> Deployment:
    """Everything runs, whatever other tests did to it."""
    eventually(shared_deployment.is_ready)
    return shared_deployment


def test_ready_is_200_while_everything_runs(deployment: Deployment):
    # A busy machine may answer 503 at times.
    answer = eventually(deployment.ready)
    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "faults": []})


def test_ready_shows_details_only_to_staff(deployment: Deployment):
    probes = deployment.staff.get("/health/ready").json()["probes"]
    assert {"PostgreSQL", "Redis", "migrations", "workers", "beat"} <= {p["name"] for p in probes}
    assert all(set(p) == {"name", "state", "message", "location", "fix"} for p in probes)


def test_doctor_finds_no_fault_in_running_processes(deployment: Deployment):
    reports = {r["name"]: r for r in json.loads(manage("doctor", "--json", **QUICK).stdout)}
    # This test has no mail server.
    assert [r["name"] for r in reports.values() if r["state"] != "ok"] == ["mail server"]
    assert reports["workers"]["message"] == "consume control, notes, embeddings, reminders"


def test_run_worker_becomes_the_worker(deployment: Deployment):
    """Otherwise signals would not reach the worker."""
    assert "celery" in psutil.Process(deployment.worker.popen.pid).cmdline()
    assert "is ready" in deployment.worker.output


def test_ready_is_503_while_beat_hangs(deployment: Deployment):
    deployment.beat.popen.send_signal(signal.SIGSTOP)
    try:
        fault = deployment.await_fault("beat")
        answer = deployment.ready()
    finally:
        deployment.beat.popen.send_signal(signal.SIGCONT)
    assert "Beat has not looked at its schedule for" in fault["message"]
    assert "systemctl restart scribes-beat" in fault["fix"]
    assert answer.status_code == 503
    assert answer.json() == {"status": "fault", "faults": ["beat"]}
    assert "no-cache" in answer.headers["Cache-Control"]


def test_ready_does_not_wait_for_servers_that_hang(
    deployment: Deployment, silent_port: int, tmp_path: Path
):
    """An answer takes 0.7 s. A connection to PostgreSQL would take ten minutes here to give up."""
    timeout = f"connect_timeout={LONGEST_WAIT_SECONDS}"
    urls = {
        "DATABASE_URL": f"postgresql://u:p@127.0.0.1:{silent_port}/db?{timeout}",
        "REDIS_URL": f"redis://127.0.0.1:{silent_port}/0",
    }
    with web_process(tmp_path, **urls) as web:
        # To know whose session this is, web would have to ask the database.
        web.session.cookies["sessionid"] = "a" * 32
        # Long enough for several runs of the probes and for answers from the kept reports.
        end = time.monotonic() + 4 * KEEP_SECONDS
        while time.monotonic() < end:
            start = time.monotonic()
            answer = web.get("/health/ready")
            assert time.monotonic() - start < LONGEST_WAIT_SECONDS / 10
            assert answer.status_code == 503
            assert {"PostgreSQL", "Redis"} <= set(answer.json()["faults"])
            assert "probes" not in answer.json()


def test_ready_tells_a_deaf_worker_from_a_hanging_one(deployment: Deployment):
    worker = deployment.worker.popen
    pool = psutil.Process(worker.pid).children(recursive=True)
    try:
        current_app.control.cancel_consumer("reminders")
        fault = deployment.await_fault("workers")
        expected = r"No worker has taken a message from the queue reminders for \d+ s"
        assert re.fullmatch(expected, fault["message"])
        assert re.search(r"health@\S+ answers, but takes no messages", fault["location"])
        assert "systemctl restart scribes-worker" in fault["fix"]
        worker.send_signal(signal.SIGSTOP)
        eventually(lambda: "no worker answers" in deployment.await_fault("workers")["location"])
    finally:
        worker.kill()
        for process in pool:
            process.kill()
    assert "no worker answers" in deployment.await_fault("workers")["location"]
    worker.wait(LONGEST_WAIT_SECONDS)
    deployment.start_worker()
