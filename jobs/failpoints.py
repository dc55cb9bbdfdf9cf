"""Named places where a test lets a process die or stop, exactly there. Off in production.

FAILPOINT=<name>:<action>[:<file>] with the actions kill (SIGKILL), stop (SIGSTOP) and raise.
With a file, it happens once: the first process to delete the file takes it. Several, separated by
commas, wait for their files side by side.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from django.conf import settings

JOB_NAMES = (
    "before_plan_commit",
    "after_claim",
    "after_compute",
    "before_commit",
    "after_commit",
    "before_publish",
    "after_publish",
    "before_reconcile_commit",
)
REMINDER_NAMES = (
    "before_sweep_commit",
    "after_sweep_commit",
    "before_publish",
    "after_publish",
    "after_delivery_claim",
    "after_send",
    "after_delivery_commit",
    "before_resend_commit",
)


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
