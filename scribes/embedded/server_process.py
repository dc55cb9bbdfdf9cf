"""One server process: started, awaited, and stopped."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from scribes.embedded.progress import Progress

POLL_SECONDS = 0.05


class ServerFailed(Exception):
    """A server did not start or did not stop. The message quotes its log."""


@contextmanager
def server_process(
    command: list[str],
    *,
    log: Path,
    is_ready: Callable[[], bool],
    stop_signal: signal.Signals,
    **identity: Any,
) -> Iterator[None]:
    """Run a server for the length of a with block, and stop it with `stop_signal`.

    There is no time limit for starting and stopping: a server that was killed replays its log first,
    which may take minutes. Raises ServerFailed if it ends, or makes no progress for a minute.

    The server gets a session of its own: Ctrl-C on the terminal must first reach the programs that
    use it. `identity` is for subprocess.Popen.
    """
    with log.open("ab") as output:
        server = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            cwd=log.parent,
            **identity,
        )
    try:
        _await(server, is_ready, log)
        yield
    finally:
        server.send_signal(stop_signal)
        _wait_until(lambda: server.poll() is not None, server, log)


def _await(server: subprocess.Popen[bytes], is_ready: Callable[[], bool], log: Path) -> None:
    _wait_until(lambda: server.poll() is not None or is_ready(), server, log)
    if server.poll() is not None:
        raise ServerFailed(f"A server ended as it started. {_end_of(log)}")


def _wait_until(condition: Callable[[], bool], server: subprocess.Popen[bytes], log: Path) -> None:
    """PostgreSQL logs each connection that it refuses, so it is waited for as long as it does that."""
    if condition():
        return
    progress = Progress(psutil.Process(server.pid), lambda: log.stat().st_size)
    while not condition():
        if progress.has_stalled():
            raise ServerFailed(f"A server makes no progress as it starts or stops. {_end_of(log)}")
        time.sleep(POLL_SECONDS)


def _end_of(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-20:]
    return "\n".join([f"The end of {log}:", *lines])
