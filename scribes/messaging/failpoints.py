"""Named places in the code where a test can kill, stop or fail a process. Off in production.

Each module that has failpoints lists their names in FAILPOINTS and calls `failpoint(name)` there.

FAILPOINT=<name>:<action>[:<file>] sets one. The actions are kill (SIGKILL), stop (SIGSTOP) and raise.
With a file, the action happens once: in the first process that deletes the file. Several failpoints
are separated by commas.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from django.conf import settings


class FailpointReached(Exception):
    """What the action `raise` raises."""


def failpoint(name: str) -> None:
    for point in settings.FAILPOINT.split(","):
        if point.startswith(f"{name}:"):
            _, action, *file = point.split(":", 2)
            if not file or _take(Path(file[0])):
                _act(name, action)


def _take(file: Path) -> bool:
    try:
        file.unlink()
    except FileNotFoundError:
        return False
    return True


def _act(name: str, action: str) -> None:
    if action == "raise":
        raise FailpointReached(name)
    os.kill(os.getpid(), signal.SIGKILL if action == "kill" else signal.SIGSTOP)
