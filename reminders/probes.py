from __future__ import annotations

from datetime import timedelta

from reminders.models import LATE_AFTER
from scribes.monitoring import heartbeats
from scribes.monitoring.probes.registry import ProbeFailed, register

# The name of the sweep's heartbeat.
SWEEP = "sweep"

LOCATION = "beat and the queue control"
FIX = "restart beat and the worker: sudo systemctl restart scribes-beat scribes-worker"


@register(
    "reminder sweep",
    group="database",
    needs=["PostgreSQL", "migrations"],
    critical=True,
    needs_running_processes=True,
)
def sweep_age() -> str:
    """The age of the last sweep. One sweep may be missed: the next one makes up for it."""
    age = heartbeats.ages().get(SWEEP)
    if age is None:
        raise ProbeFailed("No sweep has looked for due reminders yet", LOCATION, FIX)
    if timedelta(seconds=age) > 2 * LATE_AFTER:
        problem = f"The last sweep for due reminders was {age / 60:.0f} min ago"
        raise ProbeFailed(problem, LOCATION, FIX)
    return f"the last one was {age / 60:.0f} min ago"
