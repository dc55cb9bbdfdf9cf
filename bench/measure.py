"""Ways of doing the same, timed in turn in one run: what a shared machine does to one of them, it
does to the others. What counts is their ratio."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from statistics import median, quantiles
from typing import NamedTuple


class Line(NamedTuple):
    """Of the table."""

    what: str
    ours: str
    against: str
    peer: str
    ratio: float
    """Of the two; where a target says ">=", how many times better ours is."""
    target: str
    """Empty where a number is only told."""
    met: bool
    limit: float = 0
    """The best ratio that this machine allows, where that was measured in the same run."""


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_turn(*works: Callable[[], object], rounds: int = 5) -> list[list[float]]:
    """Seconds of each of the works, as often as there are rounds."""
    times = [[seconds(work) for work in works] for _ in range(rounds)]
    return [list(column) for column in zip(*times, strict=True)]


def medians(*works: Callable[[], object], rounds: int = 5) -> list[float]:
    """Median seconds of each, after one round that does not count."""
    in_turn(*works, rounds=1)
    return [median(times) for times in in_turn(*works, rounds=rounds)]


def p99(times: Sequence[float]) -> float:
    return quantiles(times, n=100)[98]


# --- Lines ----------------------------------------------------------------------------------


def at_least(
    target: float, what: str, ours: str, against: str, peer: str, ratio: float, digits: int = 2
) -> Line:
    return Line(what, ours, against, peer, ratio, f">= {target:.{digits}f}", bool(ratio >= target))


def at_most(target: float, what: str, ours: str, against: str, peer: str, ratio: float) -> Line:
    return Line(what, ours, against, peer, ratio, f"<= {target:.2f}", ratio <= target)


def faster(
    target: float, what: str, ours: float, against: str, peer: float, least: float = math.inf
) -> Line:
    """All in seconds; ours is to be so many times as fast. `least` is what it takes this machine to
    do the arithmetic alone."""
    line = at_least(target, what, duration(ours), against, duration(peer), peer / ours)
    return line._replace(limit=peer / min(least, ours) if math.isfinite(least) else 0)


def as_fast(target: float, what: str, ours: float, against: str, peer: float) -> Line:
    """Both in seconds; ours may take so many times as long."""
    return at_most(target, what, duration(ours), against, duration(peer), ours / peer)


def told(what: str, ours: str, against: str = "", peer: str = "", ratio: float = 0) -> Line:
    return Line(what, ours, against, peer, ratio, "", met=True)


def duration(time: float) -> str:
    if time >= 1:
        return f"{time:.2f} s"
    return f"{time * 1e3:.2f} ms" if time >= 1e-4 else f"{time * 1e6:.0f} µs"


def rate(number: float, unit: str) -> str:
    return f"{number:,.0f} {unit}/s"
