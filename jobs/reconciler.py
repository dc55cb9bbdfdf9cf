"""Repeats what got lost. Every step is one guarded statement, so running it twice, or two at once,
does no harm.

Things get lost when a process dies with its lease, when a message is lost between the broker and the
worker, when Redis is flushed, and when a request cannot reach the broker.
"""

from __future__ import annotations

import logging
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef
from django.db.models.functions import Now
from redis import RedisError

from jobs.job_types import JOB_TYPES
from jobs.models import BackgroundJob, BackgroundJobQuerySet, JobBatch, JobOutcomes
from jobs.runner import publish_batches, publish_plan
from scribes.messaging.failpoints import failpoint
from scribes.messaging.publishing import republish_after

logger = logging.getLogger(__name__)

# Jobs deleted in one transaction.
PRUNE_BATCH_SIZE = 100
KEEP_OUTCOMES = timedelta(days=7)

FAILPOINTS = ("before_reconcile_commit",)


def reconcile() -> None:
    """One round of all steps. Beat starts one regularly, and so does each worker when it starts."""
    fail_overdue_jobs()
    if released := JobBatch.release_expired():
        logger.warning("%d batches had lost their process", released)
    try:
        republish()
    except RedisError as error:
        logger.warning("The broker does not answer; publishing has to wait: %s", error)
    prune()


def fail_overdue_jobs() -> None:
    """Fail jobs past their deadline. What their finished batches saved is kept."""
    late = f"The job did not finish within {settings.JOB_TIMEOUT_SECONDS} s (JOB_TIMEOUT_SECONDS)."
    waited = (
        f"No worker started the job within {settings.JOB_QUEUE_TIMEOUT_SECONDS} s"
        " (JOB_QUEUE_TIMEOUT_SECONDS)."
    )
    jobs = BackgroundJob.objects
    for overdue, reason in ((jobs.overdue(), late), (jobs.never_started(), waited)):
        for job in overdue:
            if job.fail(reason):
                logger.warning("Job %s: %s", job.pk, reason)


def republish() -> None:
    """Send the messages that were never sent, and once more those that may be lost.

    Raises RedisError if the broker does not answer: each attempt would wait for a time-out.
    """
    republish_plans(republish_after("control"))
    for job_type in JOB_TYPES.values():
        batches = JobBatch.objects.of_running_jobs(job_type.name)
        batches.presumed_lost(republish_after(job_type.queue)).update(dispatched_at=None)
    dispatch_waiting_batches()


def republish_plans(seconds: int) -> None:
    with transaction.atomic():
        lost = BackgroundJob.objects.presumed_lost(seconds)
        for job in lost.select_for_update(skip_locked=True, no_key=True):
            BackgroundJob.objects.filter(pk=job.pk).update(dispatched_at=Now())
            publish_plan(job)
        failpoint("before_reconcile_commit")


def dispatch_waiting_batches() -> None:
    """Bring every running job back to JOB_PARALLELISM batches in the queue or in progress."""
    waiting = JobBatch.objects.pending().filter(job=OuterRef("pk"), dispatched_at=None)
    for job in BackgroundJob.objects.running().filter(Exists(waiting)):
        free = settings.JOB_PARALLELISM - JobBatch.in_flight(job)
        if free > 0 and job.job_type in JOB_TYPES:
            with transaction.atomic():
                publish_batches(job, JobBatch.dispatch(job, free))


def prune() -> None:
    """Delete jobs that ended JOB_KEEP_RESULT_SECONDS ago, but keep the newest of each user and type."""
    newer = BackgroundJob.objects.filter(
        user=OuterRef("user"), job_type=OuterRef("job_type"), created_at__gt=OuterRef("created_at")
    )
    kept = timedelta(seconds=settings.JOB_KEEP_RESULT_SECONDS)
    old = BackgroundJob.objects.terminal().filter(Exists(newer), completed_at__lt=Now() - kept)
    while _prune_batch(old):
        pass
    JobOutcomes.objects.filter(hour__lt=Now() - KEEP_OUTCOMES).delete()


def _prune_batch(old: BackgroundJobQuerySet) -> bool:
    """Delete some jobs and keep their outcomes. False if there are none left."""
    with transaction.atomic():
        locked = old.select_for_update(skip_locked=True, of=("self",))
        ids = list(locked.values_list("pk", flat=True)[:PRUNE_BATCH_SIZE])
        jobs = BackgroundJob.objects.filter(pk__in=ids)
        JobOutcomes.objects.bulk_create(JobOutcomes(**row) for row in jobs.outcomes_by_hour())
        jobs.delete()
    return bool(ids)
