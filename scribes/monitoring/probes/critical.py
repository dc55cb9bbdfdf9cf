"""The reports of the critical probes, shared by /health/ready, /metrics and the dashboard."""

from __future__ import annotations

import time
from threading import Lock

from scribes.monitoring.probes.registry import PROBES, Report, run

# /health/ready must answer within a second.
LIMIT_SECONDS = 0.7
# Many callers cost no more than one.
KEEP_SECONDS = 1.0

_lock = Lock()
_latest: tuple[float, list[Report]] | None = None


def critical_reports() -> list[Report]:
    """A report per critical probe, at most KEEP_SECONDS old."""
    global _latest
    with _lock:
        if _latest is None or time.monotonic() - _latest[0] > KEEP_SECONDS:
            reports = run([probe for probe in PROBES if probe.critical], LIMIT_SECONDS)
            _latest = time.monotonic(), reports
        return _latest[1]
