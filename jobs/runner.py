"""The life of a job: enqueue -> plan -> run its batches -> finish.

A batch may be computed more than once, after a crash or a repeated message; its results and its
counters are written once, in one transaction. jobs.reconciler repeats what gets lost.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol
from uuid import UUID

from celery import Task
from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone

from jobs import broker
from jobs.failpoints import failpoint
from jobs.models import BackgroundJob, ItemFailure, JobBatch, storable
from scribes.logs import about
from scribes.models import User

logger = logging.getLogger(__name__)

# A batch that was begun so often without an end is cut into parts, to find the item that kills
# the processes working on it. Each cut makes parts of a tenth, so 100 items take two cuts.
MAX_ATTEMPTS = 3
PARTS = 10
ENQUEUE_ATTEMPTS = 3

Renew = Callable[[], None]
"""Says that the work goes on. Raises LeaseLost when it need not."""


class LeaseLost(Exception):
    """The batch is in other hands, or its job has ended: stop, nothing of it can be saved."""


class JobType(Protocol):
    """What one kind of job does. Item ids are integers that only the job type understands."""

    name: str
    title: str
    """What operators see of it in Flower: "regenerate-embeddings"."""
    items: str
    """What the items are, in the plural, for people: "notes"."""
    queue: str
    max_batch_weight: int
    """A batch is full with JOB_BATCH_SIZE items, or with items of this weight in all."""

    def plan(self, job: BackgroundJob) -> Iterable[tuple[int, int]]:
        """(id, weight) of every item, once. Called again if planning is interrupted."""

    def weigh(self, job: BackgroundJob, item_ids: Sequence[int]) -> Iterable[tuple[int, int]]:
        """(id, weight) of those of these items that are there still."""

    def compute(self, job: BackgroundJob, item_ids: Sequence[int], renew: Renew) -> Any:
        """The results of these items. Slow; no transaction is open, and it may run twice.

        Call `renew` a few times in each JOB_LEASE_SECONDS. If it raises for several items, it is
        called again for each alone.
        """

    def save(self, job: BackgroundJob, results: Any) -> int:
        """Write results; how many items that were. Inside the runner's transaction: be quick.

        An item that needs nothing (it is empty, or was deleted) is simply not counted.
        """

    def finish(self, job: BackgroundJob) -> dict[str, Any]:
        """What `result_data` says of the job, in the transaction that completes it: be quick."""


JOB_TYPES: dict[str, JobType] = {}


def register(job_type: JobType) -> None:
    JOB_TYPES[job_type.name] = job_type


# --- Accepting ------------------------------------------------------------------------------


def enqueue(
    user: User,
    job_type: str,
    parameters: dict[str, Any],
    retry_of: BackgroundJob | None = None,
) -> tuple[BackgroundJob, bool]:
    """A job, and whether it is new: while one of this user and type is active, it is that one."""
    active = BackgroundJob.objects.for_user(user).active().filter(job_type=job_type)
    for _ in range(ENQUEUE_ATTEMPTS):
        try:
            return _create(user, job_type, parameters, retry_of), True
        except IntegrityError:
            if job := active.first():
                return job, False
        # The active one ended between our INSERT and our look, so its slot is free now.
    return _create(user, job_type, parameters, retry_of), True


def _create(
    user: User, job_type: str, parameters: dict[str, Any], retry_of: BackgroundJob | None
) -> BackgroundJob:
    """Raises IntegrityError while a job of this user and type is active."""
    now = timezone.now()
    with transaction.atomic():
        job = BackgroundJob.objects.create(
            user=user,
            job_type=job_type,
            parameters=parameters,
            retry_of=retry_of,
            created_at=now,
            dispatched_at=now,
        )
        publish_plan(job)
    return job


def retry_failed(job: BackgroundJob) -> tuple[BackgroundJob, bool] | None:
    """A job with only the failed items of an ended one; None where nothing has failed.

    Like enqueue, it answers with the active job of this user and type if there is one.
    """
    item_ids = list(job.failures.values_list("item_id", flat=True))
    if not item_ids:
        return None
    return enqueue(job.user, job.job_type, job.parameters | {"item_ids": item_ids}, retry_of=job)


def publish_plan(job: BackgroundJob) -> None:
    from jobs.tasks import plan_job

    publish(plan_job, str(job.pk), queue="default", says=f"{_title(job)} plan")


def publish_batches(job: BackgroundJob, batches: Sequence[JobBatch]) -> None:
    from jobs.tasks import run_batch

    total = JobBatch.count_of(job) if batches else 0
    for batch in batches:
        says = f"{_title(job)} batch {batch.number}/{total}"
        publish(run_batch, batch.pk, queue=JOB_TYPES[job.job_type].queue, says=says)


def _title(job: BackgroundJob) -> str:
    # A type that is not known here any more fails when it is planned, not before.
    title = JOB_TYPES[job.job_type].title if job.job_type in JOB_TYPES else job.job_type
    return f"{title} job {str(job.pk)[:8]}"


def publish(task: Task[..., Any], *args: Any, queue: str, says: str) -> None:
    """Send a message once the transaction commits. The only door to the broker.

    What it `says` is for people who look at Flower: no note's text, and no e-mail address.

    A broker that is down or slow costs a few times jobs.broker.TIMEOUT_SECONDS and a
    line in the log: the row stays as it is, and the reconciler publishes again.
    """
    transaction.on_commit(partial(broker.send, task, args, queue, says), robust=True)


# --- Planning -------------------------------------------------------------------------------


def plan(job_id: UUID) -> None:
    """queued -> running: list all items once, as batches, and publish the first of them.

    The ids are written down before the work starts, because paging over rows that are being
    changed skips some of them. A job that cannot be planned fails, with the reason.
    """
    of_job = BackgroundJob.objects.filter(pk=job_id)
    with about(job=job_id, request_id=of_job.values_list("request_id", flat=True).first()):
        try:
            _plan(job_id)
        except Exception as error:
            logger.exception("Job %s could not be planned", job_id)
            BackgroundJob(pk=job_id).fail(f"Planning failed: {type(error).__name__}: {error}")


def _plan(job_id: UUID) -> None:
    with transaction.atomic():
        queued = BackgroundJob.objects.select_for_update(no_key=True, of=("self",))
        job = queued.filter(pk=job_id, status=BackgroundJob.Status.QUEUED).first()
        if job is None:
            return
        job_type = JOB_TYPES[job.job_type]
        batches = list(_batches(_items(job, job_type), job_type.max_batch_weight))
        JobBatch.append(job, batches)
        job.start(sum(map(len, batches)))
        publish_batches(job, JobBatch.dispatch(job, settings.JOB_PARALLELISM))
        _complete(job, job_type)
        failpoint("before_plan_commit")
    logger.info("Job %s: %s for user %s starts", job.pk, job.job_type, job.user_id)
    logger.info("Job %s: Processing %d %s", job.pk, sum(map(len, batches)), job_type.items)


def _items(job: BackgroundJob, job_type: JobType) -> Iterable[tuple[int, int]]:
    if "item_ids" in job.parameters:
        return job_type.weigh(job, job.parameters["item_ids"])
    return job_type.plan(job)


def _batches(items: Iterable[tuple[int, int]], max_weight: int) -> Iterator[list[int]]:
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


# --- Running --------------------------------------------------------------------------------


def run_batch(batch_id: int, claimant: str) -> None:
    """Claim -> compute -> write. Returns quietly where there is nothing to claim."""
    batch = JobBatch.claim(batch_id, claimant)
    if batch is None:
        return
    failpoint("after_claim")
    batch.job.begin()
    with about(job=batch.job_id, batch=batch.number, request_id=batch.job.request_id):
        _run_claimed(batch)


def _run_claimed(batch: JobBatch) -> None:
    try:
        _run(batch, JOB_TYPES[batch.job.job_type])
    except LeaseLost:
        logger.info("%s had lost its lease or its job; nothing is written", batch)
    except Exception as error:
        logger.exception("%s could not be finished", batch)
        batch.release(f"{type(error).__name__}: {error}")


def _run(batch: JobBatch, job_type: JobType) -> None:
    if batch.attempts > MAX_ATTEMPTS:
        _give_up(batch, job_type)
        return
    results, failures = _compute(job_type, batch)
    failpoint("after_compute")
    _write(job_type, batch, results, failures)


def _renewer(batch: JobBatch) -> Renew:
    """Renews at each third of the lease, however often it is called."""
    interval = settings.JOB_LEASE_SECONDS / 3
    last = time.monotonic()

    def renew() -> None:
        nonlocal last
        if time.monotonic() - last < interval:
            return
        if not batch.renew():
            raise LeaseLost(batch)
        last = time.monotonic()

    return renew


def _compute(job_type: JobType, batch: JobBatch) -> tuple[list[Any], list[ItemFailure]]:
    """All items at once; if that raises, one by one, so that a bad item fails alone."""
    renew = _renewer(batch)
    try:
        return [job_type.compute(batch.job, batch.item_ids, renew)], []
    except LeaseLost:
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
        except LeaseLost:
            raise
        except Exception as error:  # noqa: BLE001 recorded with the item
            failures.append(_failure(batch, item_id, type(error).__name__, str(error)))
    return results, failures


def _failure(batch: JobBatch, item_id: int, error_class: str, message: str) -> ItemFailure:
    text = storable(message)
    return ItemFailure(job=batch.job, item_id=item_id, error_class=error_class, message=text)


def _write(
    job_type: JobType, batch: JobBatch, results: list[Any], failures: list[ItemFailure]
) -> None:
    """Results, failures and counters in one transaction, or nothing at all. Raises LeaseLost.

    The job's row comes last: its lock is what other batches of the job wait for.
    """
    with transaction.atomic():
        if not batch.finish():
            raise LeaseLost(batch)
        saved = sum(job_type.save(batch.job, result) for result in results)
        ItemFailure.objects.bulk_create(failures)
        skipped = len(batch.item_ids) - saved - len(failures)
        _count(batch, job_type, processed=saved, failed=len(failures), skipped=skipped)


def _give_up(batch: JobBatch, job_type: JobType) -> None:
    """leased -> dead: its items go on in smaller batches; a single one has failed."""
    with transaction.atomic():
        if not batch.bury():
            raise LeaseLost(batch)
        if len(batch.item_ids) > 1:
            BackgroundJob.objects.select_for_update(no_key=True, of=("self",)).get(pk=batch.job_id)
            JobBatch.append(batch.job, _parts(batch.item_ids))
            _count(batch, job_type)
        else:
            failure = _failure(batch, batch.item_ids[0], "AttemptsUsedUp", batch.error)
            ItemFailure.objects.bulk_create([failure])
            _count(batch, job_type, failed=1)
    logger.warning("%s was begun %d times without an end", batch, MAX_ATTEMPTS)


def _parts(item_ids: Sequence[int]) -> list[Sequence[int]]:
    size = -(-len(item_ids) // PARTS)
    return [item_ids[start : start + size] for start in range(0, len(item_ids), size)]


def _count(batch: JobBatch, job_type: JobType, **counts: int) -> None:
    """The end of every transaction that ends a batch. Raises LeaseLost if the job has ended."""
    if not batch.job.add(**counts):
        raise LeaseLost(batch)
    failpoint("before_commit")
    transaction.on_commit(partial(failpoint, "after_commit"))
    publish_batches(batch.job, JobBatch.dispatch(batch.job, 1))
    transaction.on_commit(partial(_report, batch.job), robust=True)
    _complete(batch.job, job_type)


def _complete(job: BackgroundJob, job_type: JobType) -> None:
    """Call it with the job's row locked: then the last of the batches sees all the others."""
    if not job.has_unfinished_batches():
        job.refresh_from_db()
        job.complete(job_type.finish(job))
        transaction.on_commit(partial(_report_completion, job), robust=True)


def _report(job: BackgroundJob) -> None:
    job.refresh_from_db()
    logger.info(
        "Job %s: %d/%d processed, %d failed, %d%% done",
        *(job.pk, job.done_items, job.total_items, job.failed_items, job.progress_percent),
    )


def _report_completion(job: BackgroundJob) -> None:
    counts = job.processed_items, job.failed_items
    logger.info("Job %s: complete, %d succeeded, %d failed", job.pk, *counts)
