"""`make run`: it starts every process, prints their addresses, and stops all of them at Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from scribes.embedded.ports import free_port
from tests.helpers.processes import (
    LONGEST_WAIT_SECONDS,
    MANAGE,
    Process,
    eventually,
    left_over,
    own_environment,
    running,
)
from tests.helpers.servers import Web


@pytest.fixture(scope="module")
def scribes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with make_run(tmp_path_factory.mktemp("run")) as process:
        yield process


@contextmanager
def make_run(folder: Path, log_format: str = "text") -> Iterator[Process]:
    """All processes, with data of their own, on free ports."""
    ports = {"WEB_PORT": str(free_port()), "FLOWER_PORT": str(free_port())}
    env = own_environment(folder / "data", LOG_FORMAT=log_format, **ports)
    command = [*MANAGE, "embedded", *MANAGE, "up"]
    with running(command, folder / "run.log", env) as process:
        process.await_output("Worker celery@")
        yield process


def printed(scribes: Process, pattern: str) -> tuple[str, ...]:
    """The groups of the pattern in what `make run` has printed."""
    found = re.search(pattern, scribes.output)
    assert found, scribes.output
    return found.groups()


def answer(url: str, **options) -> requests.Response:
    """The first response from this URL, also if it is an error."""

    def ask() -> list[requests.Response]:
        # A list, because a response that is an error is false.
        try:
            return [requests.get(url, timeout=LONGEST_WAIT_SECONDS, **options)]
        except requests.ConnectionError:
            return []

    return eventually(ask)[0]


def test_api_and_documentation_answer(scribes: Process):
    (web,) = printed(scribes, r"API +(\S+)")
    assert answer(web).json()["notes"] == f"{web}/notes"
    assert answer(f"{web}/docs").ok


def test_admin_accepts_the_printed_password(scribes: Process):
    address, email, password = printed(scribes, r"Admin +(\S+)/admin/ +sign in: (\S+) / (\S+)")
    answer(address)
    page = Web(address).sign_in_to_admin(email, password, page="/admin/jobs/backgroundjob/")
    assert "Select background job to view" in page


def test_flower_needs_the_printed_password(scribes: Process):
    address, user, password = printed(scribes, r"Flower +(\S+) +sign in: (\S+) / (\S+)")
    assert answer(address).status_code == 401
    workers = eventually(
        lambda: answer(f"{address}/api/workers?refresh=1", auth=(user, password)).json()
    )
    assert any(name.startswith("celery@") for name in workers)


def test_flower_listens_on_this_machine_only(scribes: Process):
    (address, port) = printed(scribes, r"Flower +(http://localhost:(\d+))")
    answer(address)
    family = psutil.Process(scribes.popen.pid).children(recursive=True)
    sockets = [socket for process in family for socket in sockets_of(process)]
    listening = {s.laddr.ip for s in sockets if s.status == "LISTEN" and s.laddr.port == int(port)}
    assert listening == {"127.0.0.1"}


def sockets_of(process: psutil.Process) -> list[Any]:
    """Its TCP sockets; none if it has ended, as processes that convert the model soon do."""
    try:
        return list(process.net_connections("tcp"))
    except psutil.NoSuchProcess:
        return []


def test_worker_prints_its_configuration(scribes: Process):
    (line,) = printed(scribes, r"(Worker celery@\S+ is ready .*)")
    for pattern in (
        r"concurrency=\d",
        r"time_limit_seconds=300",
        r"queues=control,embeddings,notes,reminders",
        r"broker=redis\+socket://\S+valkey\.sock",
        r"tasks=jobs\.tasks\.plan_job,jobs\.tasks\.reconcile,jobs\.tasks\.run_batch",
    ):
        assert re.search(pattern, line), line


def test_beat_and_flower_print_log_lines_only(scribes: Process):
    """No banner, no warning, and no line for messages that are sent every few seconds."""
    scribes.await_output("beat: Starting...")
    lines = re.findall(r"(?:beat|flower)\.1 +\| (.*)", scribes.output)
    assert [line for line in lines if not re.match(r"\d{4}-\d\d-\d\dT\S+ INFO ", line)] == []
    assert not [line for line in lines if "heartbeat of" in line]


def test_make_run_says_that_a_port_is_taken(scribes: Process, tmp_path: Path):
    (port,) = printed(scribes, r"API +http://localhost:(\d+)")
    env = own_environment(tmp_path / "data", WEB_PORT=port, FLOWER_PORT=str(free_port()))
    command = [*MANAGE, "embedded", *MANAGE, "up"]
    second = subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=LONGEST_WAIT_SECONDS
    )
    assert f"Another program uses port {port}" in second.stderr
    assert second.returncode == 1


def test_make_run_logs_one_line_instead_of_a_table(tmp_path: Path):
    with make_run(tmp_path, log_format="json") as scribes:
        lines = [line for line in scribes.output.splitlines() if line.startswith("{")]
        (welcome,) = [json.loads(line) for line in lines if "Scribes is starting" in line]
    assert welcome["api"].startswith("http://localhost:")
    assert "password" not in scribes.output


def test_ctrl_c_stops_everything(tmp_path: Path):
    with make_run(tmp_path) as scribes:
        (web,) = printed(scribes, r"API +(\S+)")
        assert answer(web).ok
        os.killpg(scribes.popen.pid, signal.SIGINT)
        scribes.await_end()
        assert left_over(tmp_path) == []
        with pytest.raises(requests.ConnectionError):
            requests.get(web, timeout=LONGEST_WAIT_SECONDS)
