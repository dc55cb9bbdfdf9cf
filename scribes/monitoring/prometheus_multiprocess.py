"""The folder where the web processes of one machine add up their metrics, so that each of them can
show the sums."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from django.conf import settings


def folder() -> Path:
    """One folder per machine or container: the files in it are told apart by process id."""
    path: Path = settings.DATA_DIR / "metrics" / socket.gethostname()
    return path


def enable() -> None:
    """Let this process write its metrics there, and delete those of dead processes.

    Call it before prometheus_client is imported, which decides then how it counts.
    """
    folder().mkdir(parents=True, exist_ok=True)
    for file in folder().glob("*.db"):
        if not _is_alive(int(file.stem.rpartition("_")[2])):
            file.unlink(missing_ok=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder())


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's process has the id now
    return True
