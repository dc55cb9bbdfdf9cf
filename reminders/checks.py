from __future__ import annotations

from datetime import timedelta

from reminders.models import LATE_AFTER
from scribes import heartbeats
from scribes.checks import Fault, register

SWEEP = "sweep"


@register(
    "reminder sweep", group="database", needs=["PostgreSQL", "migrations"], vital=True, running=True
)
def sweep_age() -> str:
    """One sweep may be missed: the next one makes up for it."""
    age = heartbeats.ages().get(SWEEP)
    if age is None or timedelta(seconds=age) > 2 * LATE_AFTER:
        ago = "No sweep has looked for due reminders yet"
        if age is not None:
            ago = f"The last sweep for due reminders was {age / 60:.0f} min ago"
        mend = "restart beat and the worker: sudo systemctl restart scribes-beat scribes-worker"
        raise Fault(ago, "the queue reminders", mend)
    return f"the last one was {age / 60:.0f} min ago"
