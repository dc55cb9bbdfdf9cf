"""Measurements of several ways of doing the same, and the lines of the table.

The ways are timed in turn in one run: other work on a shared machine slows all of them down. What
counts is their ratio.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from statistics import median, quantiles
from typing import NamedTuple


class Line(NamedTuple):
    """A line of the table."""

    title: str
    ours: str
    peer: str
    theirs: str
    ratio: float
    """Ours to theirs. If the target is a minimum: how many times better ours is."""
    target: str
    """">= 2.00" or "<= 2.00"; empty for a line without a target."""
    is_met: bool
    limit: float = 0
    """The best ratio that is possible on this machine, measured in the same run; 0 if unknown."""


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_turn(*works: Callable[[], object], rounds: int = 5) -> list[list[float]]:
    """The seconds of each work in each round; a round does all of them once."""
    times = [[seconds(work) for work in works] for _ in range(rounds)]
    return [list(column) for column in zip(*times, strict=True)]


def medians(*works: Callable[[], object], rounds: int = 5) -> list[float]:
    """The median seconds of each work, after one round that does not count."""
    in_turn(*works, rounds=1)
    return [median(times) for times in in_turn(*works, rounds=rounds)]


def p99(times: Sequence[float]) -> float:
    return quantiles(times, n=100)[98]


# --- Lines ----------------------------------------------------------------------------------


def at_least(
    target: float, title: str, ours: str, peer: str, theirs: str, ratio: float, digits: int = 2
) -> Line:
    return Line(title, ours, peer, theirs, ratio, f">= {target:.{digits}f}", bool(ratio >= target))


def at_most(target: float, title: str, ours: str, peer: str, theirs: str, ratio: float) -> Line:
    return Line(title, ours, peer, theirs, ratio, f"<= {target:.2f}", bool(ratio <= target))


def faster(
    target: float, title: str, ours: float, peer: str, theirs: float, minimum: float = math.inf
) -> Line:
    """A line about seconds: ours must be `target` times as fast as the peer's.

    `minimum` is the time that this machine needs for the computation alone.
    """
    line = at_least(target, title, duration(ours), peer, duration(theirs), theirs / ours)
    return line._replace(limit=theirs / min(minimum, ours) if math.isfinite(minimum) else 0)


def not_slower(target: float, title: str, ours: float, peer: str, theirs: float) -> Line:
    """A line about seconds: ours may take at most `target` times as long as the peer's."""
    return at_most(target, title, duration(ours), peer, duration(theirs), ours / theirs)


def no_target(title: str, ours: str, peer: str = "", theirs: str = "", ratio: float = 0) -> Line:
    return Line(title, ours, peer, theirs, ratio, "", is_met=True)


def duration(time: float) -> str:
    if time >= 1:
        return f"{time:.2f} s"
    return f"{time * 1e3:.2f} ms" if time >= 1e-4 else f"{time * 1e6:.0f} µs"


def rate(number: float, unit: str) -> str:
    return f"{number:,.0f} {unit}/s"
