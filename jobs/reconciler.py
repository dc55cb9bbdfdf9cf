"""Repeats what got lost. Every part is one guarded statement, so that running it twice, or twice
at once, does no harm.

What gets lost: a process with its lease, a message between the broker and the worker, all
messages when Redis is flushed, and the message of a request that found no broker.
"""

from __future__ import annotations

import logging
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef
from django.db.models.functions import Now
from redis import RedisError

from jobs import broker
from jobs.failpoints import failpoint
from jobs.models import BackgroundJob, BackgroundJobQuerySet, EndedJobs, JobBatch
from jobs.runner import JOB_TYPES, publish_batches, publish_plan

logger = logging.getLogger(__name__)

# While other messages wait in a queue, one that is not served yet is hardly lost: then it is
# sent again only after so many times JOB_REPUBLISH_SECONDS.
PATIENCE_WITH_A_BUSY_QUEUE = 10
# Jobs deleted in one transaction.
PRUNE_BATCH_SIZE = 100
# How long the numbers of jobs that ended outlive them.
KEEP_ENDED_JOBS = timedelta(days=7)


def reconcile() -> None:
    """One round of everything: by beat, and by each worker as it starts."""
    fail_overdue_jobs()
    if released := JobBatch.release_expired():
        logger.warning("%d batches had lost their process", released)
    try:
        republish()
    except RedisError as error:
        logger.warning("The broker does not answer; publishing waits: %s", error)
    prune()


def fail_overdue_jobs() -> None:
    """What they have finished is kept; batches in work save nothing any more."""
    late = f"The job was not done within {settings.JOB_TIMEOUT} s (JOB_TIMEOUT)."
    waiting = f"No worker began the job within {settings.JOB_QUEUE_TIMEOUT} s (JOB_QUEUE_TIMEOUT)."
    jobs = BackgroundJob.objects
    for overdue, reason in ((jobs.overdue(), late), (jobs.never_begun(), waiting)):
        for job in overdue:
            if job.fail(reason):
                logger.warning("Job %s: %s", job.pk, reason)


def republish() -> None:
    """Send the messages that may be lost again, and those that never were sent.

    Raises RedisError if the broker does not answer: there would be no end to trying.
    """
    republish_plans(_patience("default"))
    for job_type in JOB_TYPES.values():
        lost = JobBatch.objects.of_running_jobs(job_type.name)
        lost.told_before(_patience(job_type.queue)).update(dispatched_at=None)
    dispatch_waiting_batches()


def _patience(queue: str) -> int:
    """Seconds after which a message that had no effect counts as lost."""
    patience: int = settings.JOB_REPUBLISH_SECONDS
    return patience * PATIENCE_WITH_A_BUSY_QUEUE if broker.queue_length(queue) else patience


def republish_plans(patience: int) -> None:
    with transaction.atomic():
        lost = BackgroundJob.objects.told_before(patience)
        for job in lost.select_for_update(skip_locked=True, no_key=True):
            BackgroundJob.objects.filter(pk=job.pk).update(dispatched_at=Now())
            publish_plan(job)
        failpoint("before_reconcile_commit")


def dispatch_waiting_batches() -> None:
    """Bring every running job back to JOB_PARALLELISM batches in the queue or in work."""
    waiting = JobBatch.objects.pending().filter(job=OuterRef("pk"), dispatched_at=None)
    for job in BackgroundJob.objects.running().filter(Exists(waiting)):
        free = settings.JOB_PARALLELISM - JobBatch.in_flight(job)
        if free > 0 and job.job_type in JOB_TYPES:
            with transaction.atomic():
                publish_batches(job, JobBatch.dispatch(job, free))


def prune() -> None:
    """Delete jobs that ended JOB_KEEP_RESULT seconds ago, but for the newest of a user and type."""
    newer = BackgroundJob.objects.filter(
        user=OuterRef("user"), job_type=OuterRef("job_type"), created_at__gt=OuterRef("created_at")
    )
    old = BackgroundJob.objects.terminal().filter(
        Exists(newer), completed_at__lt=Now() - timedelta(seconds=settings.JOB_KEEP_RESULT)
    )
    while _prune_batch(old):
        pass
    EndedJobs.objects.filter(hour__lt=Now() - KEEP_ENDED_JOBS).delete()


def _prune_batch(old: BackgroundJobQuerySet) -> bool:
    """Delete some, and write down how many of them ended when. False if there are none left."""
    with transaction.atomic():
        locked = old.select_for_update(skip_locked=True, of=("self",))
        ids = list(locked.values_list("pk", flat=True)[:PRUNE_BATCH_SIZE])
        ended = BackgroundJob.objects.filter(pk__in=ids)
        EndedJobs.objects.bulk_create(EndedJobs(**counts) for counts in ended.ended_by_hour())
        ended.delete()
    return bool(ids)
