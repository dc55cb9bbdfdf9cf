"""What the admin's front page says of jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Count, Min, Q
from django.db.models.functions import Now
from django.utils import timezone

from celery_app import QUEUES
from jobs import broker
from jobs.models import BackgroundJob, EndedJobs, needs_attention
from scribes.dashboard import HOURS, Figure, Panel, latest_hours, register
from scribes.display import spoken

S = BackgroundJob.Status


@register("Queues", needs="Redis")
def queues() -> Panel:
    lengths = {queue: broker.queue_length(queue) for queue in QUEUES}
    full = settings.QUEUE_FULL_LENGTH
    figures = [
        Figure(queue, length, length > full, share=length / full)
        for queue, length in lengths.items()
    ]
    return Panel("", figures, note=f"Messages that wait for a worker; {full} are too many.")


@register("Jobs")
def jobs() -> Panel:
    now = timezone.now()
    counts = BackgroundJob.objects.order_by().aggregate(
        running=Count("pk", filter=Q(status=S.RUNNING)),
        queued=Count("pk", filter=Q(status=S.QUEUED)),
        longest=Now() - Min("created_at", filter=Q(status=S.QUEUED)),
        attention=Count("pk", filter=needs_attention()),
    )
    hours = latest_hours(_by_hour(now), now)
    figures = [
        Figure("running", counts["running"]),
        Figure("waiting", counts["queued"]),
        Figure("longest wait", spoken(counts["longest"])),
        Figure("need attention", counts["attention"], is_fault=counts["attention"] > 0),
        Figure(f"ended in {HOURS} h", sum(hour.good + hour.bad for hour in hours)),
        Figure("of them not well", sum(hour.bad for hour in hours)),
    ]
    return Panel("", figures, hours, note="Not well: failed, or with failed items.")


def _by_hour(now: datetime) -> Iterator[tuple[datetime, int, int]]:
    """(hour, jobs that ended well, others), of the jobs that are kept and those that were pruned."""
    since = now - timedelta(hours=HOURS)
    kept = BackgroundJob.objects.filter(completed_at__gt=since).ended_by_hour()
    pruned = EndedJobs.objects.filter(hour__gt=since).values("hour", "well", "badly")
    well, badly = Counter[datetime](), Counter[datetime]()
    for row in (*kept, *pruned):
        well[row["hour"]] += row["well"]
        badly[row["hour"]] += row["badly"]
    return ((hour, well[hour], badly[hour]) for hour in well)
