"""Waiting for processes: as long as they make progress, and not for ever."""

from __future__ import annotations

import itertools
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from scribes.embedded import progress
from scribes.embedded.progress import Progress, cpu_seconds
from scribes.embedded.server_process import ServerFailed, server_process
from tests.helpers.processes import eventually

SLEEPS = "import time; time.sleep(3600)"
WORKS = "while True: pass"
# The work is done by another process, as PostgreSQL recovers in one.
CHILD_WORKS = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {WORKS!r}])"


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "STALLED_SECONDS", 1)
    monkeypatch.setattr(progress, "WORK_SECONDS", 0.02)
    monkeypatch.setattr(progress, "LOOK_INTERVAL_SECONDS", 0.05)


@contextmanager
def python(code: str) -> Iterator[psutil.Process]:
    process = psutil.Popen([sys.executable, "-c", code])
    try:
        yield process
    finally:
        if process.is_running():
            for member in [*process.children(recursive=True), process]:
                member.kill()
        process.wait()


def nothing() -> None:
    pass


def await_stall(watched: Progress) -> None:
    while not watched.has_stalled():
        time.sleep(0.05)


def assert_does_not_stall(watched: Progress, until: Callable[[], bool]) -> None:
    while not until():
        assert not watched.has_stalled()
        time.sleep(0.05)


def test_process_has_stalled_when_it_does_nothing():
    with python(SLEEPS) as process:
        await_stall(Progress(process, nothing))


def test_process_has_stalled_when_it_has_ended():
    with python("") as process:
        process.wait()
        await_stall(Progress(process, nothing))


@pytest.mark.parametrize("code", [WORKS, CHILD_WORKS], ids=["itself", "its child"])
def test_process_has_not_stalled_while_it_uses_cpu_time(code: str):
    with python(code) as process:
        watched = Progress(process, nothing)
        assert_does_not_stall(watched, lambda: cpu_seconds(process) > 3)


def test_process_has_not_stalled_while_a_value_changes():
    with python(SLEEPS) as process:
        watched = Progress(process, itertools.count().__next__)
        end = time.monotonic() + 3
        assert_does_not_stall(watched, lambda: time.monotonic() > end)


def test_process_has_stalled_when_it_works_for_too_long():
    with python(WORKS) as process:
        await_stall(Progress(process, nothing, longest_seconds=2))


# --- Servers --------------------------------------------------------------------------------


@contextmanager
def server(code: str, log: Path) -> Iterator[None]:
    """A server that is ready when it has printed "ready"."""
    with server_process(
        [sys.executable, "-uc", code],
        log=log,
        is_ready=lambda: "ready" in log.read_text(),
        stop_signal=signal.SIGTERM,
    ):
        yield


def test_server_is_awaited_while_it_recovers(tmp_path: Path):
    recovers = "import time\nwhile time.process_time() < 3: pass\nprint('ready')\n" + SLEEPS
    with server(recovers, tmp_path / "log"):
        pass


def test_server_that_recovers_as_it_stops_is_awaited(tmp_path: Path):
    code = (
        "import signal, sys, time\n"
        "def stop(*_):\n"
        "    end = time.process_time() + 3\n"
        "    while time.process_time() < end: pass\n"
        "    sys.exit('stopped')\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "print('ready')\n" + SLEEPS
    )
    with server(code, tmp_path / "log"):
        pass
    assert "stopped" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("code", "message"),
    [(SLEEPS, "makes no progress"), ("raise SystemExit('no memory')", "ended as it started")],
)
def test_server_that_does_not_start_is_an_error(tmp_path: Path, code: str, message: str):
    log = tmp_path / "log"
    with pytest.raises(ServerFailed, match=message) as error, server(code, log):
        pass
    assert log.read_text().strip() in str(error.value)


# --- Tests ----------------------------------------------------------------------------------


def test_eventually_says_what_it_waited_for(tmp_path: Path):
    empty: list[int] = []
    with pytest.raises(AssertionError, match="sum\\(empty\\)") as error:
        eventually(lambda: sum(empty), lambda: "as far as this")
    assert "is still 0 after" in str(error.value)
    assert "as far as this" in str(error.value)
