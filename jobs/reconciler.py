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
from django.db.models import Count, Exists, OuterRef, Subquery
from django.db.models.functions import Coalesce, Now
from redis import RedisError

from jobs.job_types import JOB_TYPES
from jobs.models import BackgroundJob, BackgroundJobQuerySet, JobBatch, JobOutcomes
from jobs.runner import publish_batches, publish_plan
from scribes.messaging import broker
from scribes.messaging.failpoints import failpoint
from scribes.messaging.publishing import republish_after

logger = logging.getLogger(__name__)

# The limit for the rows that one transaction changes.
BATCH_SIZE = 100
# The limit for the jobs that one round looks at in each step. The next round goes on.
MAX_JOBS_PER_ROUND = 1000
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
    """Fail jobs that took too much work, and those that no worker serves. What their finished batches
    saved is kept."""
    long = (
        f"Processes worked on the job for more than {settings.JOB_TIMEOUT_SECONDS} s"
        " (JOB_TIMEOUT_SECONDS)."
    )
    unserved = (
        "No worker has worked on any job of this type for"
        f" {settings.JOB_QUEUE_TIMEOUT_SECONDS} s (JOB_QUEUE_TIMEOUT_SECONDS)."
    )
    jobs = BackgroundJob.objects
    for overdue, reason in ((jobs.overdue(), long), (jobs.never_started(), unserved)):
        for job in overdue.only("pk")[:MAX_JOBS_PER_ROUND]:
            if job.fail(reason):
                logger.warning("Job %s: %s", job.pk, reason)


def republish() -> None:
    """Send the messages that were never sent, and once more those that are lost.

    Raises RedisError if the broker does not answer: each attempt would wait for a time-out.
    """
    republish_plans(republish_after("control"))
    for job_type in JOB_TYPES.values():
        # Any message of the queue serves any batch, so none is lost while one is there.
        if not broker.queue_length(job_type.queue):
            withdraw_lost_batches(job_type.name)
    dispatch_waiting_batches()


def republish_plans(seconds: int) -> None:
    """Publish plans again whose message had no effect for `seconds`."""
    for _ in range(MAX_JOBS_PER_ROUND // BATCH_SIZE):
        if _republish_some_plans(seconds) < BATCH_SIZE:
            return


def _republish_some_plans(seconds: int) -> int:
    """The number of plans that were published."""
    with transaction.atomic():
        lost = BackgroundJob.objects.presumed_lost(seconds)
        locked = lost.select_for_update(skip_locked=True, no_key=True)
        jobs = list(locked.only("pk", "job_type")[:BATCH_SIZE])
        BackgroundJob.objects.filter(pk__in=[job.pk for job in jobs]).update(dispatched_at=Now())
        for job in jobs:
            publish_plan(job)
        failpoint("before_reconcile_commit")
    return len(jobs)


def withdraw_lost_batches(job_type: str) -> None:
    """Let batches be dispatched again whose message had no effect for JOB_REPUBLISH_SECONDS."""
    lost = JobBatch.objects.of_running_jobs([job_type]).presumed_lost(
        settings.JOB_REPUBLISH_SECONDS
    )
    locked = lost.select_for_update(skip_locked=True, no_key=True).values("pk")
    with transaction.atomic():
        JobBatch.objects.filter(pk__in=locked[:MAX_JOBS_PER_ROUND]).update(dispatched_at=None)


def dispatch_waiting_batches() -> None:
    """Bring running jobs back to JOB_PARALLELISM batches in the queue or in progress."""
    waiting = JobBatch.objects.pending().filter(job=OuterRef("pk"), dispatched_at=None)
    in_flight = JobBatch.objects.in_flight().filter(job=OuterRef("pk")).order_by().values("job")
    count = Coalesce(Subquery(in_flight.annotate(n=Count("pk")).values("n")), 0)
    running = BackgroundJob.objects.running().filter(Exists(waiting), job_type__in=JOB_TYPES)
    short = running.annotate(in_flight=count).filter(in_flight__lt=settings.JOB_PARALLELISM)
    for job in short.only("pk", "job_type", "user")[:MAX_JOBS_PER_ROUND]:
        _dispatch_up_to_parallelism(job)


def _dispatch_up_to_parallelism(job: BackgroundJob) -> None:
    """Counts with the job's row locked, as does the end of a batch, so that two reconcilers at once
    do not both fill the same gap."""
    with transaction.atomic():
        running = BackgroundJob.objects.running().filter(pk=job.pk)
        if not running.select_for_update(skip_locked=True, no_key=True).values("pk"):
            return
        free = settings.JOB_PARALLELISM - JobBatch.objects.in_flight().filter(job=job).count()
        if free > 0:
            publish_batches(job, JobBatch.dispatch(job, free))


def prune() -> None:
    """Delete jobs that ended JOB_KEEP_RESULT_SECONDS ago, but keep the newest of each user and type."""
    newer = BackgroundJob.objects.filter(
        user=OuterRef("user"), job_type=OuterRef("job_type"), created_at__gt=OuterRef("created_at")
    )
    kept = timedelta(seconds=settings.JOB_KEEP_RESULT_SECONDS)
    old = BackgroundJob.objects.terminal().filter(Exists(newer), completed_at__lt=Now() - kept)
    for _ in range(MAX_JOBS_PER_ROUND // BATCH_SIZE):
        if _prune_some(old) < BATCH_SIZE:
            break
    JobOutcomes.objects.filter(hour__lt=Now() - KEEP_OUTCOMES).delete()


def _prune_some(old: BackgroundJobQuerySet) -> int:
    """Delete some jobs and keep their outcomes. The number of jobs."""
    with transaction.atomic():
        locked = old.select_for_update(skip_locked=True, of=("self",))
        ids = list(locked.values_list("pk", flat=True)[:BATCH_SIZE])
        jobs = BackgroundJob.objects.filter(pk__in=ids)
        JobOutcomes.objects.bulk_create(JobOutcomes(**row) for row in jobs.outcomes_by_hour())
        jobs.delete()
    return len(ids)
