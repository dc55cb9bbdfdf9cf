from __future__ import annotations

from collections.abc import Iterator

from django.db.models import Avg, Count, F, Max, Min, Sum
from django.db.models.functions import Now
from prometheus_client import Metric

from celery_app import QUEUES
from jobs.models import BackgroundJob
from scribes.messaging import broker
from scribes.monitoring.metrics import gauge, register

SCOPE = "Only jobs that are kept count (JOB_KEEP_RESULT_SECONDS)."


@register()
def jobs() -> Iterator[Metric]:
    rows = BackgroundJob.objects.order_by().values_list("job_type", "status")
    counts = (((kind, status), number) for kind, status, number in rows.annotate(Count("pk")))
    help = f"Number of jobs by type and status. {SCOPE}"
    yield gauge("scribes_jobs", help, ["type", "status"], counts)
    wait = BackgroundJob.objects.queued().aggregate(wait=Now() - Min("created_at"))["wait"]
    seconds = wait.total_seconds() if wait else 0
    help = "How long the oldest queued job has been waiting."
    yield gauge("scribes_oldest_queued_job_seconds", help, [], [((), seconds)])


@register()
def items() -> Iterator[Metric]:
    by_type = BackgroundJob.objects.order_by().values_list("job_type")
    sums = by_type.annotate(Sum("processed_items"), Sum("failed_items"), Sum("skipped_items"))
    rows = (
        ((kind, result), number)
        for kind, *numbers in sums
        for result, number in zip(("processed", "failed", "skipped"), numbers, strict=True)
    )
    help = f"Number of items by job type and result. {SCOPE}"
    yield gauge("scribes_job_items", help, ["type", "result"], rows)


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
    help = f"Seconds from the start of a job to its end. {SCOPE}"
    yield gauge("scribes_job_seconds", help, ["type", "measure"], rows)


@register(needs="Redis")
def queues() -> Iterator[Metric]:
    rows = (([queue], broker.queue_length(queue)) for queue in QUEUES)
    help = "Number of messages waiting in the queue."
    yield gauge("scribes_queue_messages", help, ["queue"], rows)
