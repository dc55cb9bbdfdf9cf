"""One server process: started, awaited, and stopped."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# A server that was killed replays its log first, which may take a while.
START_TIMEOUT_SECONDS = 60
STOP_TIMEOUT_SECONDS = 60


class ServerFailed(Exception):
    """A server ended, or did not answer in time. The message quotes its log."""


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

    The server gets a session of its own: Ctrl-C on the terminal must first reach the programs that
    use it. `identity` is for subprocess.Popen. Raises ServerFailed.
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
        server.wait(STOP_TIMEOUT_SECONDS)


def _await(server: subprocess.Popen[bytes], is_ready: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while not is_ready():
        if server.poll() is not None or time.monotonic() > deadline:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
            raise ServerFailed(f"A server did not start. The end of {log}:\n{tail}")
        time.sleep(0.05)
