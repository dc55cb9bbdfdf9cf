"""The table of probes, and how they are run.

`manage.py doctor`, `manage.py run_worker`, /health/ready and the dashboard run them. A probe is a
function that returns what it found in a few words, or raises ProbeFailed. No probe changes anything.

To add a probe:
1. write a function in the module for its subject, or in the `probes` module of your app;
2. decorate it with `@register("its name")`;
3. give it the group of the server that it asks, and the probes of that group that it needs;
4. make it critical if Scribes does not work without what it looks at;
5. add a row to the table of doctor's messages in docs/guide.md.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from itertools import groupby
from threading import Thread
from typing import NamedTuple

from django.db import connections

ProbeFunction = Callable[[], str]


class ProbeFailed(Exception):
    """A probe found something wrong.

    `problem` says what is wrong, `location` where, and `fix` is a command or a setting that fixes it.
    """

    def __init__(self, problem: str, location: str, fix: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.location = location
        self.fix = fix


class Probe(NamedTuple):
    name: str
    probe: ProbeFunction
    group: str
    """The probes of one group run one after the other, in the order of their registration."""
    needs: Sequence[str]
    """Probes of the same group. If one of them fails, this probe is skipped."""
    critical: bool
    """Scribes does not work without it."""
    needs_running_processes: bool
    """It looks at processes of Scribes, so it fails before they have started."""


class Report(NamedTuple):
    name: str
    state: str
    """ok, fault, or skipped: a probe that it needs has failed."""
    message: str
    """What the probe found, or the problem."""
    location: str = ""
    fix: str = ""

    @property
    def is_fault(self) -> bool:
        return self.state == "fault"


PROBES: list[Probe] = []


def register(
    name: str,
    *,
    group: str = "",
    needs: Sequence[str] = (),
    critical: bool = False,
    needs_running_processes: bool = False,
) -> Callable[[ProbeFunction], ProbeFunction]:
    """Decorate a probe. Without a group it runs on its own. Raises ValueError for a name that is
    taken."""

    def add(probe: ProbeFunction) -> ProbeFunction:
        if name in {known.name for known in PROBES}:
            raise ValueError(f"There is already a probe called {name}.")
        PROBES.append(Probe(name, probe, group or name, needs, critical, needs_running_processes))
        return probe

    return add


def run(probes: Sequence[Probe], seconds: float) -> list[Report]:
    """One report per probe, in their order, after `seconds` at most.

    A probe that has not answered by then is a fault. Its thread goes on until its own time-out.
    """
    deadline = time.monotonic() + seconds
    reports: dict[str, Report] = {}
    threads = [Thread(target=_run_group, args=(g, reports), daemon=True) for g in _groups(probes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    for probe in probes:
        reports.setdefault(probe.name, _unanswered(probe, reports, seconds))
    return [reports[probe.name] for probe in probes]


def _groups(probes: Sequence[Probe]) -> list[list[Probe]]:
    ordered = sorted(probes, key=lambda probe: probe.group)
    return [list(group) for _, group in groupby(ordered, key=lambda probe: probe.group)]


def _run_group(probes: Sequence[Probe], reports: dict[str, Report]) -> None:
    try:
        for probe in probes:
            reports.setdefault(probe.name, _run(probe, reports))
    finally:
        connections.close_all()


def _run(probe: Probe, reports: dict[str, Report]) -> Report:
    if not _can_run(probe, reports):
        return _skipped(probe)
    try:
        return Report(probe.name, "ok", probe.probe())
    except ProbeFailed as failure:
        return Report(probe.name, "fault", failure.problem, failure.location, failure.fix)
    except Exception as error:  # noqa: BLE001 one probe must not hide what the others found
        message = f"The probe failed: {type(error).__name__}: {mask_passwords(str(error))}"
        return Report(
            probe.name, "fault", message, "manage.py doctor", "fix the other faults first"
        )


def _can_run(probe: Probe, reports: dict[str, Report]) -> bool:
    return all(name not in reports or reports[name].state == "ok" for name in probe.needs)


def _skipped(probe: Probe) -> Report:
    return Report(probe.name, "skipped", f"skipped: it needs {' and '.join(probe.needs)}")


def _unanswered(probe: Probe, reports: dict[str, Report], seconds: float) -> Report:
    if not _can_run(probe, reports):
        return _skipped(probe)
    message = f"no answer within {seconds:g} s"
    return Report(probe.name, "fault", message, probe.group, "manage.py doctor waits longer")


def mask_passwords(text: str) -> str:
    """Replace the password of each URL in the text by stars."""
    text = re.sub(r"(://[^:/@\s]*):[^/@\s]*@", r"\1:***@", text)
    return re.sub(r"([?&]password=)[^&\s]*", r"\1***", text)
