"""Named health checks: what is wrong, where, and the command that mends it.

`manage.py doctor`, `manage.py run_worker` and /health/ready all ask here. A check is a function
that says in a few words what it found, or raises Fault; notes, jobs and reminders register theirs
as their apps get ready. No check changes anything.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from itertools import groupby
from threading import Thread
from typing import NamedTuple

from django.db import connections

Look = Callable[[], str]


class Fault(Exception):
    """Something is wrong."""

    def __init__(self, what: str, where: str, mend: str) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.mend = mend


class Check(NamedTuple):
    name: str
    look: Look
    group: str
    """Those of a group run one after the other, in the order of their registration."""
    needs: Sequence[str]
    """Checks of the same group whose fault would make this one say nothing new."""
    vital: bool
    """Without it Scribes does not do its work."""
    running: bool
    """It is about processes of Scribes: there is nothing to see before they have started."""


class Report(NamedTuple):
    name: str
    state: str
    """ok, fault, or skipped: what it needs is at fault"""
    what: str
    where: str = ""
    mend: str = ""

    @property
    def is_fault(self) -> bool:
        return self.state == "fault"


CHECKS: list[Check] = []


def register(
    name: str,
    *,
    group: str = "",
    needs: Sequence[str] = (),
    vital: bool = False,
    running: bool = False,
) -> Callable[[Look], Look]:
    """A decorator. Without a group the check runs on its own."""

    def add(look: Look) -> Look:
        CHECKS.append(Check(name, look, group or name, needs, vital, running))
        return look

    return add


def run(checks: Sequence[Check], seconds: float) -> list[Report]:
    """A report for each check, in their order, after `seconds` at the latest.

    What has not answered by then is a fault. Its thread is left to its own time-out.
    """
    deadline = time.monotonic() + seconds
    reports: dict[str, Report] = {}
    threads = [Thread(target=_run_group, args=(g, reports), daemon=True) for g in _groups(checks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    for check in checks:
        reports.setdefault(check.name, _unanswered(check, reports, seconds))
    return [reports[check.name] for check in checks]


def _groups(checks: Sequence[Check]) -> list[list[Check]]:
    ordered = sorted(checks, key=lambda check: check.group)
    return [list(group) for _, group in groupby(ordered, key=lambda check: check.group)]


def _run_group(checks: Sequence[Check], reports: dict[str, Report]) -> None:
    try:
        for check in checks:
            reports.setdefault(check.name, _run(check, reports))
    finally:
        connections.close_all()


def _run(check: Check, reports: dict[str, Report]) -> Report:
    if not _can_run(check, reports):
        return _skipped(check)
    try:
        return Report(check.name, "ok", check.look())
    except Fault as fault:
        return Report(check.name, "fault", fault.what, fault.where, fault.mend)
    except Exception as error:  # noqa: BLE001 one check must not hide what the others found
        what = f"could not be checked: {type(error).__name__}: {masked(str(error))}"
        return Report(check.name, "fault", what, "manage.py doctor", "mend the other faults first")


def _can_run(check: Check, reports: dict[str, Report]) -> bool:
    return all(name not in reports or reports[name].state == "ok" for name in check.needs)


def _skipped(check: Check) -> Report:
    return Report(check.name, "skipped", f"not checked: it needs {' and '.join(check.needs)}")


def _unanswered(check: Check, reports: dict[str, Report], seconds: float) -> Report:
    if not _can_run(check, reports):
        return _skipped(check)
    what = f"no answer within {seconds:g} s"
    return Report(check.name, "fault", what, check.group, "manage.py doctor waits longer")


def masked(text: str) -> str:
    """With stars in place of the password of each URL in it."""
    text = re.sub(r"(://[^:/@\s]*):[^/@\s]*@", r"\1:***@", text)
    return re.sub(r"([?&]password=)[^&\s]*", r"\1***", text)
