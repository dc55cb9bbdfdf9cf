"""The life of a job: enqueue -> plan -> run its batches -> finish.

A batch may be computed more than once, after a crash or a repeated message. Its results and its
counters are written once, in one transaction. jobs.reconciler repeats what gets lost.

The way of a batch stays in one module, since it is easier to follow so. That makes this module longer
than others.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone

from jobs.job_types import (
    JOB_TYPES,
    JobType,
    LeaseLost,
    Renew,
    Unfinished,
    display_name,
    types_of_queue,
)
from jobs.models import BackgroundJob, ItemFailure, JobBatch
from scribes.messaging.failpoints import failpoint
from scribes.messaging.publishing import publish
from scribes.messaging.sanitize import strip_unstorable
from scribes.messaging.task_events import relabel_task
from scribes.models import User
from scribes.monitoring.logging import current_request_id, log_context
from scribes.presentation import short_id

logger = logging.getLogger(__name__)

# A batch that was started this often and never finished is split, to find the item that kills the
# processes. Each split makes ten parts, so that 100 items take two splits.
MAX_ATTEMPTS = 3
PARTS = 10
ENQUEUE_ATTEMPTS = 3
# A lease is renewed after this share of its time.
RENEW_SHARE = 1 / 3

FAILPOINTS = (
    "before_plan_commit",
    "after_claim",
    "after_compute",
    "before_commit",
    "after_commit",
)


# --- Enqueue --------------------------------------------------------------------------------


def enqueue(
    user: User,
    job_type: str,
    parameters: dict[str, Any],
    retry_of: BackgroundJob | None = None,
) -> tuple[BackgroundJob, bool]:
    """A job, and whether it is new: while this user has an active job of this type, it is that one."""
    active = BackgroundJob.objects.for_user(user).active().filter(job_type=job_type)
    for _ in range(ENQUEUE_ATTEMPTS):
        try:
            return _create(user, job_type, parameters, retry_of), True
        except IntegrityError:
            if job := active.first():
                return job, False
        # The active job ended between the INSERT and the SELECT, so there is room for one now.
    return _create(user, job_type, parameters, retry_of), True


def _create(
    user: User, job_type: str, parameters: dict[str, Any], retry_of: BackgroundJob | None
) -> BackgroundJob:
    """Raises IntegrityError while this user has an active job of this type."""
    now = timezone.now()
    with transaction.atomic():
        job = BackgroundJob.objects.create(
            user=user,
            job_type=job_type,
            parameters=parameters,
            retry_of=retry_of,
            request_id=current_request_id(),
            created_at=now,
            dispatched_at=now,
        )
        publish_plan(job)
    return job


def retry_failed(job: BackgroundJob) -> tuple[BackgroundJob, bool] | None:
    """A new job with only the failed items of a terminal one; None if nothing failed in it.

    Like enqueue, it returns the active job of this user and type if there is one.
    """
    item_ids = list(job.failures.values_list("item_id", flat=True))
    if not item_ids:
        return None
    return enqueue(job.user, job.job_type, job.parameters | {"item_ids": item_ids}, retry_of=job)


def publish_plan(job: BackgroundJob) -> None:
    label = f"{display_name(job.job_type)}: job {short_id(job.pk)} plan"
    publish("jobs.tasks.plan_job", str(job.pk), queue="control", label=label)


def publish_batches(job: BackgroundJob, batches: Sequence[JobBatch]) -> None:
    total = JobBatch.count_of(job) if batches else 0
    for batch in batches:
        label = f"{display_name(job.job_type)}: {_details(batch, total)}"
        queue = JOB_TYPES[job.job_type].queue
        publish("jobs.tasks.run_batch", batch.pk, queue=queue, label=label)


def _details(batch: JobBatch, total: int) -> str:
    return f"job {short_id(batch.job_id)} batch {batch.number}/{total}"


# --- Plan -----------------------------------------------------------------------------------


def plan(job_id: UUID) -> None:
    """queued -> running: write all items down as batches, and publish the first batches.

    The ids are stored before the work starts, because paging over rows that change meanwhile skips
    some of them. A job that cannot be planned fails, with the reason.
    """
    rows = BackgroundJob.objects.filter(pk=job_id)
    with log_context(job=job_id, request_id=rows.values_list("request_id", flat=True).first()):
        try:
            _plan(job_id)
        except Exception as error:
            logger.exception("Job %s could not be planned", job_id)
            BackgroundJob(pk=job_id).fail(f"Planning failed: {type(error).__name__}: {error}")


def _plan(job_id: UUID) -> None:
    with transaction.atomic():
        queued = BackgroundJob.objects.queued().select_for_update(no_key=True, of=("self",))
        job = queued.filter(pk=job_id).first()
        if job is None:
            return
        job_type = JOB_TYPES[job.job_type]
        batches = list(_batches(_items(job, job_type), job_type.max_batch_weight))
        total = sum(map(len, batches))
        JobBatch.append(job, batches)
        job.start(total)
        _dispatch_or_complete(job, job_type, settings.JOB_PARALLELISM)
        failpoint("before_plan_commit")
    logger.info("Job %s: %s for user %s starts", job.pk, job.job_type, job.user_id)
    logger.info("Job %s: Processing %d %s", job.pk, total, job_type.item_label)


def _items(job: BackgroundJob, job_type: JobType) -> Iterable[tuple[int, int]]:
    if "item_ids" in job.parameters:
        return job_type.weigh(job, job.parameters["item_ids"])
    return job_type.plan(job)


def _batches(items: Iterable[tuple[int, int]], max_weight: int) -> Iterator[list[int]]:
    """Item ids in batches of JOB_BATCH_SIZE items or of `max_weight`, whichever comes first. An item
    that is heavier alone gets a batch of its own."""
    batch: list[int] = []
    total = 0
    for item_id, weight in items:
        if batch and (len(batch) == settings.JOB_BATCH_SIZE or total + weight > max_weight):
            yield batch
            batch, total = [], 0
        batch.append(item_id)
        total += weight
    if batch:
        yield batch


# --- Run ------------------------------------------------------------------------------------


def run_next_batch(batch_id: int, queue: str, claimant: str) -> None:
    """Run the batch whose turn it is, of the job types of this queue.

    A message names the batch that it was sent for. In the meantime, the turn may have gone to the
    batch of another user; then Flower is told which one.
    """
    if batch := JobBatch.claim_next(types_of_queue(queue), claimant):
        if batch.pk != batch_id:
            name = display_name(batch.job.job_type)
            relabel_task(f"{name}: {_details(batch, JobBatch.count_of(batch.job))}")
        run_claimed(batch)


def run_batch(batch_id: int, claimant: str) -> None:
    """Run this batch, whosever turn it is. Returns quietly if it cannot be claimed."""
    if batch := JobBatch.claim(batch_id, claimant):
        run_claimed(batch)


def run_claimed(batch: JobBatch) -> None:
    """Compute -> write."""
    failpoint("after_claim")
    with log_context(job=batch.job_id, batch=batch.number, request_id=batch.job.request_id):
        _run_or_release(batch)


def _run_or_release(batch: JobBatch) -> None:
    try:
        _run(batch, JOB_TYPES[batch.job.job_type])
    except LeaseLost:
        logger.info("%s: this process lost the lease or the job ended; nothing is written", batch)
    except Unfinished:
        _put_back(batch)
    except Exception as error:
        logger.exception("%s failed", batch)
        batch.release(f"{type(error).__name__}: {error}")


def _run(batch: JobBatch, job_type: JobType) -> None:
    if batch.attempts > MAX_ATTEMPTS:
        _give_up(batch, job_type)
        return
    results, failures = _compute(job_type, batch)
    failpoint("after_compute")
    _write(job_type, batch, results, failures)


def _renewer(batch: JobBatch) -> Renew:
    """A function that renews the lease once in each third of its time, however often it is called."""
    interval = settings.JOB_LEASE_SECONDS * RENEW_SHARE
    renewed_at = time.monotonic()

    def renew() -> None:
        nonlocal renewed_at
        if time.monotonic() - renewed_at < interval:
            return
        if not batch.renew():
            raise LeaseLost(batch)
        renewed_at = time.monotonic()

    return renew


def _compute(job_type: JobType, batch: JobBatch) -> tuple[list[Any], list[ItemFailure]]:
    """Compute all items at once; if that raises, one by one, so that a bad item fails alone."""
    renew = _renewer(batch)
    try:
        return [job_type.compute(batch.job, batch.item_ids, renew)], []
    except (LeaseLost, Unfinished):
        raise
    except Exception:
        logger.exception("%s raised; its items are tried one by one", batch)
    return _compute_each(job_type, batch, renew)


def _compute_each(
    job_type: JobType, batch: JobBatch, renew: Renew
) -> tuple[list[Any], list[ItemFailure]]:
    results, failures = [], []
    for item_id in batch.item_ids:
        renew()
        try:
            results.append(job_type.compute(batch.job, [item_id], renew))
        except (LeaseLost, Unfinished):
            raise
        except Exception as error:  # noqa: BLE001 recorded with the item
            failures.append(_failure(batch, item_id, type(error).__name__, str(error)))
    return results, failures


def _failure(batch: JobBatch, item_id: int, error_class: str, message: str) -> ItemFailure:
    text = strip_unstorable(message)
    return ItemFailure(job=batch.job, item_id=item_id, error_class=error_class, message=text)


def _write(
    job_type: JobType, batch: JobBatch, results: list[Any], failures: list[ItemFailure]
) -> None:
    """Write results, failures and counters in one transaction, or nothing. Raises LeaseLost.

    The job's row comes last: other batches of the job wait for its lock.
    """
    with transaction.atomic():
        if not batch.finish():
            raise LeaseLost(batch)
        saved = [job_type.save(batch.job, result) for result in results]
        ItemFailure.objects.bulk_create(failures)
        processed = sum(part.items for part in saved)
        skipped = len(batch.item_ids) - processed - len(failures)
        _record(batch, processed=processed, failed=len(failures), skipped=skipped)
        for part in saved:
            batch.job.add_to_result(part.result_data)
        _finish(batch.job, job_type)


def _put_back(batch: JobBatch) -> None:
    """Let others have their turn before the rest of this batch."""
    with transaction.atomic():
        if batch.put_back():
            publish_batches(batch.job, [batch])


def _give_up(batch: JobBatch, job_type: JobType) -> None:
    """leased -> dead: the items go on in smaller batches; a single item has failed."""
    with transaction.atomic():
        if not batch.mark_dead():
            raise LeaseLost(batch)
        if len(batch.item_ids) > 1:
            BackgroundJob.objects.select_for_update(no_key=True, of=("self",)).get(pk=batch.job_id)
            JobBatch.append(batch.job, _parts(batch.item_ids))
            _record(batch)
        else:
            failure = _failure(batch, batch.item_ids[0], "AttemptsUsedUp", batch.error)
            ItemFailure.objects.bulk_create([failure])
            _record(batch, failed=1)
        _finish(batch.job, job_type)
    logger.warning("%s was started %d times and never finished", batch, MAX_ATTEMPTS)


def _parts(item_ids: Sequence[int]) -> list[Sequence[int]]:
    size = -(-len(item_ids) // PARTS)
    return [item_ids[start : start + size] for start in range(0, len(item_ids), size)]


def _record(batch: JobBatch, **counts: int) -> None:
    """Raises LeaseLost if the job has ended."""
    if not batch.job.record_progress(batch.work_since, **counts):
        raise LeaseLost(batch)


# --- Finish ---------------------------------------------------------------------------------


def _finish(job: BackgroundJob, job_type: JobType) -> None:
    """End every transaction that ends a batch: dispatch the next batch, or complete the job."""
    failpoint("before_commit")
    transaction.on_commit(partial(failpoint, "after_commit"))
    transaction.on_commit(partial(_log_progress, job), robust=True)
    _dispatch_or_complete(job, job_type, 1)


def _dispatch_or_complete(job: BackgroundJob, job_type: JobType, count: int) -> None:
    """Call it with the job's row locked: then the last batch sees that all others have ended."""
    batches = JobBatch.dispatch(job, count)
    publish_batches(job, batches)
    if not batches and not job.has_unfinished_batches():
        job.refresh_from_db()
        job.complete(job_type.summarize(job))
        transaction.on_commit(partial(_log_completion, job), robust=True)


def _log_progress(job: BackgroundJob) -> None:
    job.refresh_from_db()
    logger.info(
        "Job %s: %d/%d processed, %d failed, %d%% done",
        *(job.pk, job.done_items, job.total_items, job.failed_items, job.progress_percent),
    )


def _log_completion(job: BackgroundJob) -> None:
    counts = job.processed_items, job.failed_items
    logger.info("Job %s: complete, %d succeeded, %d failed", job.pk, *counts)
