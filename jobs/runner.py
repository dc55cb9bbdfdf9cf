"""The life of a job: enqueue -> plan -> run its batches -> finish.

Delivery is at least once: a batch may be computed twice, after a crash or a repeated message,
but its results and its counters are written once, in one transaction.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Any, Protocol
from uuid import UUID

from celery import Task
from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone

from jobs.models import BackgroundJob, ItemFailure, JobBatch, deadline
from scribes.models import User

logger = logging.getLogger(__name__)


class JobType(Protocol):
    """What one kind of job does. Item ids are integers that only the job type understands."""

    name: str
    items: str
    """What the items are, in the plural, for people: "notes"."""
    queue: str

    def plan(self, user: User, parameters: dict[str, Any]) -> Sequence[int]:
        """The ids of all items, once. Called again if planning is interrupted."""

    def compute(self, item_ids: Sequence[int]) -> Any:
        """The results of these items. Slow; no transaction is open, and it may run twice.

        If it raises for several items, it is called again for each alone.
        """

    def save(self, results: Any) -> int:
        """Write results; how many items that were. Inside the runner's transaction: be quick.

        An item that needs nothing (it is empty, or was deleted) is simply not counted.
        """

    def summary(self, job: BackgroundJob) -> dict[str, Any]:
        """What `result_data` says of a completed job."""


JOB_TYPES: dict[str, JobType] = {}


def register(job_type: JobType) -> None:
    JOB_TYPES[job_type.name] = job_type


# --- Accepting ------------------------------------------------------------------------------


def enqueue(user: User, job_type: str, parameters: dict[str, Any]) -> tuple[BackgroundJob, bool]:
    """A job, and whether it is new: while one of this user and type is active, it is that one."""
    now = timezone.now()
    try:
        with transaction.atomic():
            job = BackgroundJob.objects.create(
                user=user,
                job_type=job_type,
                parameters=parameters,
                created_at=now,
                deadline_at=deadline(now),
            )
            publish_plan(job.pk)
            return job, True
    except IntegrityError:
        active = BackgroundJob.objects.for_user(user).active().filter(job_type=job_type).first()
        # It ended between our INSERT and our look: then its slot is free.
        return (active, False) if active else enqueue(user, job_type, parameters)


def publish_plan(job_id: UUID) -> None:
    from jobs.tasks import plan_job

    publish(plan_job, str(job_id), queue="default")


def publish_batches(job_type: JobType, batch_ids: Sequence[int]) -> None:
    from jobs.tasks import run_batch

    for batch_id in batch_ids:
        publish(run_batch, batch_id, queue=job_type.queue)


def publish(task: Task[..., Any], *args: Any, queue: str) -> None:
    """Send a message once the transaction commits. The only door to the broker.

    A broker that is down or slow costs its time-outs (3 s) and a line in the log, nothing more:
    the row stays as it is, and the reconciler publishes again.
    """
    transaction.on_commit(partial(_send, task, args, queue), robust=True)


def _send(task: Task[..., Any], args: tuple[Any, ...], queue: str) -> None:
    try:
        task.apply_async(args, queue=queue)
    except Exception as error:  # noqa: BLE001 whatever the broker does, the request goes on
        logger.warning("Could not publish %s%s: %s", task.name, args, error)


# --- Planning -------------------------------------------------------------------------------


def plan(job_id: UUID) -> None:
    """queued -> running: list all items once, as batches, and publish the first of them.

    The ids are written down before the work starts, because paging over rows that are being
    changed skips some of them. A job that cannot be planned fails, with the reason.
    """
    try:
        _plan(job_id)
    except Exception as error:
        logger.exception("Job %s could not be planned", job_id)
        BackgroundJob(pk=job_id).fail(f"Planning failed: {type(error).__name__}: {error}")


def _plan(job_id: UUID) -> None:
    with transaction.atomic():
        queued = BackgroundJob.objects.select_for_update(no_key=True).select_related("user")
        job = queued.filter(pk=job_id, status=BackgroundJob.Status.QUEUED).first()
        if job is None:
            return
        job_type = JOB_TYPES[job.job_type]
        item_ids = job_type.plan(job.user, job.parameters)
        JobBatch.objects.bulk_create(_batches(job, item_ids))
        job.start(len(item_ids))
        publish_batches(job_type, JobBatch.dispatch(job, settings.JOB_PARALLELISM))
        logger.info("Job %s: %s for user %s starts", job.pk, job.job_type, job.user_id)
        logger.info("Job %s: Processing %d %s", job.pk, len(item_ids), job_type.items)
        _complete(job, job_type)


def _batches(job: BackgroundJob, item_ids: Sequence[int]) -> list[JobBatch]:
    remaining = iter(item_ids)
    chunks = iter(lambda: list(islice(remaining, settings.JOB_BATCH_SIZE)), [])
    return [JobBatch(job=job, number=n, item_ids=ids) for n, ids in enumerate(chunks, 1)]


# --- Running --------------------------------------------------------------------------------


def run_batch(batch_id: int) -> None:
    """Claim -> compute -> write. Returns quietly where there is nothing to claim."""
    batch = JobBatch.claim(batch_id)
    if batch is None:
        return
    job_type = JOB_TYPES[batch.job.job_type]
    results, failures = _compute(job_type, batch)
    if _write(job_type, batch, results, failures):
        _report(batch.job)


def _compute(job_type: JobType, batch: JobBatch) -> tuple[list[Any], list[ItemFailure]]:
    """All items at once; if that raises, one by one, so that a bad item fails alone."""
    try:
        return [job_type.compute(batch.item_ids)], []
    except Exception:
        logger.exception("%s raised; its items are tried one by one", batch)
    return _compute_each(job_type.compute, batch)


def _compute_each(
    compute: Callable[[Sequence[int]], Any], batch: JobBatch
) -> tuple[list[Any], list[ItemFailure]]:
    results, failures = [], []
    for item_id in batch.item_ids:
        try:
            results.append(compute([item_id]))
        except Exception as error:  # noqa: BLE001 recorded with the item
            failures.append(
                ItemFailure(
                    job=batch.job,
                    item_id=item_id,
                    error_class=type(error).__name__,
                    message=str(error),
                )
            )
    return results, failures


def _write(
    job_type: JobType, batch: JobBatch, results: list[Any], failures: list[ItemFailure]
) -> bool:
    """Results, failures and counters in one transaction, or nothing at all.

    False when the lease was lost or the job is no longer running. The job's row comes last: its
    lock is what other batches of the job wait for.
    """
    job = batch.job
    with transaction.atomic():
        if not batch.finish():
            return False
        saved = sum(job_type.save(result) for result in results)
        ItemFailure.objects.bulk_create(failures)
        publish_batches(job_type, JobBatch.dispatch(job, 1))
        skipped = len(batch.item_ids) - saved - len(failures)
        if not job.add(processed=saved, failed=len(failures), skipped=skipped):
            transaction.set_rollback(True)
            return False
        _complete(job, job_type)
    return True


def _complete(job: BackgroundJob, job_type: JobType) -> None:
    """Call it with the job's row locked: then the last of the batches sees all the others."""
    if not job.has_unfinished_batches():
        job.refresh_from_db()
        job.complete(job_type.summary(job))


def _report(job: BackgroundJob) -> None:
    job.refresh_from_db()
    logger.info(
        "Job %s: %d/%d processed, %d failed, %d%% done",
        *(job.pk, job.done_items, job.total_items, job.failed_items, job.progress_percent),
    )
    if job.status == BackgroundJob.Status.COMPLETED:
        succeeded = job.processed_items
        logger.info(
            "Job %s: complete, %d succeeded, %d failed", job.pk, succeeded, job.failed_items
        )
