"""Where the web processes of one machine add up what they measure, for any of them to show."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from django.conf import settings


def folder() -> Path:
    """Not shared with other machines, or containers: process ids tell the files apart."""
    path: Path = settings.DATA_DIR / "metrics" / socket.gethostname()
    return path


def share() -> None:
    """Let this process write there, and forget what dead ones wrote. To be called before
    prometheus_client is imported, which then decides how it counts."""
    folder().mkdir(parents=True, exist_ok=True)
    for file in folder().glob("*.db"):
        if not _lives(int(file.stem.rpartition("_")[2])):
            file.unlink(missing_ok=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder())


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is somebody else's by now
    return True
