"""How long a job takes, from its own speed so far and from the speed of earlier jobs."""

from __future__ import annotations

from datetime import datetime

from django.db.models import F, Sum

from jobs.models import BackgroundJob

# The number of completed jobs of a type that its speed is taken from.
SAMPLE_SIZE = 5


def eta_seconds(job: BackgroundJob, now: datetime) -> int | None:
    """Seconds until a running job is done, at its speed so far; None while that is unknown."""
    if job.status != BackgroundJob.Status.RUNNING or not job.done_items or not job.started_at:
        return None
    elapsed = (now - job.started_at).total_seconds()
    return round(elapsed * (job.total_items - job.done_items) / job.done_items)


def items_per_second(job_type: str) -> float | None:
    """The speed of the latest completed jobs of this type, of all users; None if there are none."""
    completed = BackgroundJob.objects.filter(
        job_type=job_type, status=BackgroundJob.Status.COMPLETED, processed_items__gt=0
    )
    latest = completed.order_by("-completed_at")[:SAMPLE_SIZE]
    timed = latest.annotate(took=F("completed_at") - F("started_at"))
    total = timed.aggregate(items=Sum("processed_items"), time=Sum("took"))
    return total["items"] / total["time"].total_seconds() if total["time"] else None
