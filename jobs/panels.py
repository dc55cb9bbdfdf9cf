"""The dashboard's panels about jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Count, Min, Q
from django.db.models.functions import Now
from django.utils import timezone

from celery_app import QUEUES
from jobs.models import BackgroundJob, JobOutcomes, needs_attention
from scribes.messaging import broker
from scribes.monitoring.dashboard import HOURS, Figure, Panel, latest_hours, register
from scribes.presentation import humanize_duration

S = BackgroundJob.Status


@register("Queues", needs="Redis")
def queues() -> Panel:
    lengths = {queue: broker.queue_length(queue) for queue in QUEUES}
    full = settings.QUEUE_FULL_LENGTH
    figures = [
        Figure(queue, length, length > full, share=length / full)
        for queue, length in lengths.items()
    ]
    return Panel(
        "", figures, note=f"Messages waiting for a worker. More than {full} are a problem."
    )


@register("Jobs")
def jobs() -> Panel:
    now = timezone.now()
    counts = BackgroundJob.objects.order_by().aggregate(
        running=Count("pk", filter=Q(status=S.RUNNING)),
        queued=Count("pk", filter=Q(status=S.QUEUED)),
        longest=Now() - Min("created_at", filter=Q(status=S.QUEUED)),
        attention=Count("pk", filter=needs_attention()),
    )
    hours = latest_hours(_outcomes(now), now)
    figures = [
        Figure("running", counts["running"]),
        Figure("waiting", counts["queued"]),
        Figure("longest wait", humanize_duration(counts["longest"])),
        Figure("need attention", counts["attention"], is_problem=counts["attention"] > 0),
        Figure(f"ended in {HOURS} h", sum(hour.succeeded + hour.failed for hour in hours)),
        Figure("with failures", sum(hour.failed for hour in hours)),
    ]
    note = "With failures: jobs that failed, and jobs with failed items."
    return Panel("", figures, hours, note=note)


def _outcomes(now: datetime) -> Iterator[tuple[datetime, int, int]]:
    """(hour, succeeded, failed), of the jobs that are kept and of those that were pruned."""
    since = now - timedelta(hours=HOURS)
    kept = BackgroundJob.objects.filter(completed_at__gt=since).outcomes_by_hour()
    pruned = JobOutcomes.objects.filter(hour__gt=since).values("hour", "succeeded", "failed")
    succeeded, failed = Counter[datetime](), Counter[datetime]()
    for row in (*kept, *pruned):
        succeeded[row["hour"]] += row["succeeded"]
        failed[row["hour"]] += row["failed"]
    return ((hour, succeeded[hour], failed[hour]) for hour in succeeded)
