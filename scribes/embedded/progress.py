"""Waiting for other processes for as long as they make progress: on a busy machine, slow is not broken."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import psutil

# A process that has made no progress for so long is given up.
STALLED_SECONDS = 60
# CPU time that counts as progress: 5 % of the time after which a process is given up. An idle
# process uses less, and a process that works gets more, even if many others compete with it.
WORK_SECONDS = 3
LOOK_INTERVAL_SECONDS = 1


class Progress:
    """Watches a process and its descendants.

    Progress is CPU time, or a new value of `observe`, such as the size of a log. It does not show that
    the process will ever be ready: a process in an endless loop makes progress, too. So CPU time alone
    counts only for `longest_seconds`.
    """

    def __init__(
        self,
        process: psutil.Process,
        observe: Callable[[], object],
        longest_seconds: float = math.inf,
    ) -> None:
        self._process, self._observe, self._longest_seconds = process, observe, longest_seconds
        self._observed, self._cpu_seconds = observe(), cpu_seconds(process)
        self._latest = self._looked = self._news = time.monotonic()

    def has_stalled(self) -> bool:
        """Whether there has been no progress for STALLED_SECONDS. Cheap enough to be asked often."""
        now = time.monotonic()
        if now - self._looked >= LOOK_INTERVAL_SECONDS:
            self._look(now)
        return now - self._latest > STALLED_SECONDS or now - self._news > self._longest_seconds

    def _look(self, now: float) -> None:
        self._looked = now
        observed, cpu = self._observe(), cpu_seconds(self._process)
        if observed != self._observed:
            self._observed, self._news, self._latest = observed, now, now
        # Where the system does not count ended children, the end of one makes the sum smaller.
        if abs(cpu - self._cpu_seconds) >= WORK_SECONDS:
            self._cpu_seconds, self._latest = cpu, now


def cpu_seconds(process: psutil.Process) -> float:
    """The CPU time of a process and its descendants, ended ones included; 0 after it has ended itself."""
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    return sum(map(_own_cpu_seconds, family))


def _own_cpu_seconds(process: psutil.Process) -> float:
    """With the time of children that have ended."""
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system + times.children_user + times.children_system
