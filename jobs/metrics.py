from __future__ import annotations

from collections.abc import Iterator

from django.db.models import Avg, Count, F, Max, Min, Sum
from django.db.models.functions import Now
from prometheus_client import Metric

from celery_app import QUEUES
from jobs import broker
from jobs.models import BackgroundJob
from scribes.metrics import gauge, register

KEPT = "of the jobs that are kept (JOB_KEEP_RESULT)."


@register()
def jobs() -> Iterator[Metric]:
    rows = BackgroundJob.objects.order_by().values_list("job_type", "status")
    counts = (((kind, status), number) for kind, status, number in rows.annotate(Count("pk")))
    yield gauge("scribes_jobs", f"By type and state: {KEPT}", ["type", "state"], counts)
    queued = BackgroundJob.objects.filter(status=BackgroundJob.Status.QUEUED)
    wait = queued.aggregate(wait=Now() - Min("created_at"))["wait"]
    seconds = wait.total_seconds() if wait else 0
    yield gauge("scribes_oldest_queued_job_seconds", "How long it waits.", [], [((), seconds)])


@register()
def items() -> Iterator[Metric]:
    by_type = BackgroundJob.objects.order_by().values_list("job_type")
    sums = by_type.annotate(Sum("processed_items"), Sum("failed_items"), Sum("skipped_items"))
    rows = (
        ((kind, result), number)
        for kind, *numbers in sums
        for result, number in zip(("processed", "failed", "skipped"), numbers, strict=True)
    )
    yield gauge("scribes_job_items", f"By type and result: {KEPT}", ["type", "result"], rows)


@register()
def job_seconds() -> Iterator[Metric]:
    ended = BackgroundJob.objects.terminal().exclude(started_at=None).order_by()
    took = F("completed_at") - F("started_at")
    rows = [
        ((kind, measure), time.total_seconds())
        for kind, mean, longest in ended.values_list("job_type").annotate(
            mean=Avg(took), max=Max(took)
        )
        for measure, time in (("mean", mean), ("max", longest))
    ]
    yield gauge("scribes_job_seconds", f"From start to end, {KEPT}", ["type", "measure"], rows)


@register(needs="Redis")
def queues() -> Iterator[Metric]:
    rows = (([queue], broker.queue_length(queue)) for queue in QUEUES)
    yield gauge("scribes_queue_messages", "Messages that wait in the queue.", ["queue"], rows)
