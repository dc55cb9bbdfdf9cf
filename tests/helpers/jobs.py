"""Shortcuts around jobs of the tests' own type (tests.helpers.counting) and embedding jobs."""

from __future__ import annotations

from rest_framework.test import APIClient

from jobs import runner
from jobs.models import BackgroundJob, JobBatch
from jobs.runner import enqueue
from jobs.tasks import plan_job
from jobs.tasks import run_batch as run_batch_task
from scribes.models import User
from tests.helpers.counting import Counting

LONG_AGO = "2000-01-01T00:00:00Z"


def start_counting(user: User, count: int, **parameters) -> BackgroundJob:
    """A planned counting job."""
    job, _ = enqueue(user, Counting.name, {"count": count} | parameters)
    plan_job(str(job.pk))
    job.refresh_from_db()
    return job


def batch_ids(job: BackgroundJob) -> list[int]:
    return list(job.batches.order_by("number").values_list("pk", flat=True))


def item_counts(job: BackgroundJob) -> tuple[int, int, int]:
    """processed, failed, skipped"""
    return job.processed_items, job.failed_items, job.skipped_items


def claim(job: BackgroundJob, claimant: str = "a message", number: int = 1) -> JobBatch:
    """One batch of the job, claimed as a worker claims it that got this message."""
    batch = JobBatch.claim(job.batches.get(number=number).pk, claimant)
    assert batch
    return batch


def run_batch(batch_id: int) -> None:
    """Run this batch in this process, whosever turn it is."""
    runner.run_batch(batch_id, claimant="")


def deliver(batch_id: int, message: str = "a message") -> None:
    """Run the task in this process, as a worker does that gets a message about this batch."""
    run_batch_task.apply((batch_id,), task_id=message, routing_key=Counting.queue, throw=True)


def in_flight(job: BackgroundJob) -> int:
    """How many batches of the job have a message or a process."""
    return JobBatch.objects.in_flight().filter(job=job).count()


def expire_leases(job: BackgroundJob) -> None:
    """Let all leases of the job expire, as if their processes had died."""
    held = JobBatch.objects.held().filter(job=job)
    held.update(lease_expires_at=LONG_AGO)


def regenerate(api: APIClient, **options: bool) -> BackgroundJob:
    """An embedding regeneration, accepted over HTTP and run in this process."""
    job_id = api.post("/semantic/regenerate-embeddings", options).json()["task_id"]
    return run_job(BackgroundJob.objects.get(pk=job_id))


def run_job(job: BackgroundJob | None, batches: int | None = None) -> BackgroundJob:
    """Plan the job and run its pending batches in this process: all, or the first `batches`."""
    assert job
    plan_job(str(job.pk))
    for batch_id in job.batches.pending().values_list("pk", flat=True)[:batches]:
        run_batch(batch_id)
    job.refresh_from_db()
    return job
