"""How a job is shown to people: in the API, in the admin, and by commands."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db.models import Count, F, QuerySet
from django.template.defaultfilters import pluralize

from jobs.estimate import eta_seconds
from jobs.job_types import hint, item_label
from jobs.models import BackgroundJob, ItemFailure, JobBatch
from scribes.presentation import humanize_duration

# More squares on a job's page would say less.
MAX_GRID_BATCHES = 400
MAX_LISTED_ITEMS = 100

SYMBOLS = {"pending": "·", "leased": "▸", "done": "✓", "dead": "✕", "retried": "↻"}
STATUS_LABELS = {
    JobBatch.Status.PENDING: "waiting",
    JobBatch.Status.LEASED: "in progress",
    JobBatch.Status.DONE: "done",
    JobBatch.Status.DEAD: "given up",
}


def describe(job: BackgroundJob) -> str:
    """The job's state in one sentence."""
    items = item_label(job.job_type)
    counts = f"{job.done_items} of {job.total_items} {items} done, {job.failed_items} failed"
    return {
        BackgroundJob.Status.QUEUED: "The job is waiting for a worker.",
        BackgroundJob.Status.RUNNING: f"The job is running: {counts}.",
        BackgroundJob.Status.COMPLETED: f"The job is complete: {counts}.",
        BackgroundJob.Status.FAILED: f"The job failed: {job.error_message} ({counts}).",
        BackgroundJob.Status.CANCELLED: f"The job was cancelled: {counts}.",
    }[BackgroundJob.Status(job.status)]


def progress_text(job: BackgroundJob, now: datetime) -> list[str]:
    """The parts of a progress line: 134/200, 67 %, about 40 s left."""
    if job.status == BackgroundJob.Status.QUEUED:
        return ["waiting for a worker"]
    parts = [f"{job.done_items}/{job.total_items}", f"{job.progress_percent} %"]
    if (left := eta_seconds(job, now)) is not None:
        parts.append(f"about {humanize_duration(left)} left")
    return parts


def item_summary(job: BackgroundJob) -> str:
    return (
        f"{job.processed_items} processed, {job.failed_items} failed, {job.skipped_items} skipped"
    )


# --- Batches --------------------------------------------------------------------------------


def batch_counts(job: BackgroundJob) -> list[tuple[int, str]]:
    """(number of batches, label) for each status that occurs."""
    counts = job.batches.order_by().values_list("status").annotate(Count("pk"))
    return [(number, STATUS_LABELS[JobBatch.Status(status)]) for status, number in counts]


def batch_grid(job: BackgroundJob) -> Iterator[dict[str, str]]:
    """The first MAX_GRID_BATCHES batches in order: kind, symbol, text, and a link to Flower."""
    batches = job.batches.annotate(items=F("item_ids__len")).defer("item_ids")
    for batch in batches.order_by("number")[:MAX_GRID_BATCHES]:
        is_retried = batch.attempts > 1 and batch.status in JobBatch.ACTIVE
        kind = "retried" if is_retried else batch.status
        yield {
            "kind": kind,
            "symbol": SYMBOLS[kind],
            "text": _batch_text(batch),
            "url": f"{settings.FLOWER_URL}/task/{batch.claimed_by}" if batch.claimed_by else "",
        }


def _batch_text(batch: JobBatch) -> str:
    label = STATUS_LABELS[JobBatch.Status(batch.status)]
    items: int = batch.items  # type: ignore[attr-defined]
    text = f"Batch {batch.number}: {label}, {items} item{pluralize(items)}"
    if batch.attempts > 1:
        text += f", attempt {batch.attempts}"
    return f"{text}. {batch.error}" if batch.error else text


# --- Failures -------------------------------------------------------------------------------


def failure_hint(failure: ItemFailure) -> str:
    return hint(failure.job.job_type, failure.error_class)


def failure_causes(job: BackgroundJob) -> list[dict[str, Any]]:
    """The job's failures by error class, the most frequent first."""
    failures = job.failures.all()
    counts = failures.order_by().values("error_class").annotate(count=Count("pk"))
    return [
        {
            "error_class": error_class,
            "hint": hint(job.job_type, error_class),
            "count": count,
            "item_ids": _item_ids(failures.filter(error_class=error_class)),
        }
        for error_class, count in counts.order_by("-count").values_list("error_class", "count")
    ]


def _item_ids(failures: QuerySet[ItemFailure]) -> list[int]:
    return list(failures.values_list("item_id", flat=True)[:MAX_LISTED_ITEMS])
