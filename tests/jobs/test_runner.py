"""The life of a job, driven by the tests' own job type through the tasks' functions."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from django.db import connections

from jobs.models import BackgroundJob, ItemFailure, JobBatch
from jobs.runner import JOB_TYPES, enqueue, register
from jobs.tasks import plan_job, run_batch
from scribes.models import User


class Counting:
    """Items are numbers. 13 cannot be computed; 7 needs nothing, so it is skipped."""

    name = "counting"
    items = "numbers"
    queue = "default"

    def __init__(self) -> None:
        self.saved: list[int] = []

    def plan(self, user, parameters) -> Sequence[int]:
        if parameters["count"] < 0:
            raise ValueError(f"there are no {parameters['count']} numbers")
        return range(parameters["count"])

    def compute(self, item_ids: Sequence[int]) -> list[int]:
        if 13 in item_ids:
            raise ArithmeticError("13 brings bad luck")
        return [item for item in item_ids if item != 7]

    def save(self, results: list[int]) -> int:
        self.saved += results
        return len(results)

    def summary(self, job: BackgroundJob) -> dict[str, int]:
        return {"counted": job.processed_items}


@pytest.fixture
def counting() -> Iterator[Counting]:
    job_type = Counting()
    register(job_type)
    yield job_type
    del JOB_TYPES[job_type.name]


def start(user: User, count: int) -> BackgroundJob:
    job, _ = enqueue(user, "counting", {"count": count})
    plan_job(str(job.pk))
    job.refresh_from_db()
    return job


def batch_ids(job: BackgroundJob) -> list[int]:
    return list(job.batches.order_by("number").values_list("pk", flat=True))


def counts(job: BackgroundJob) -> tuple[int, int, int]:
    return job.processed_items, job.failed_items, job.skipped_items


def test_planning_makes_batches_of_100(alice: User, counting: Counting):
    job = start(alice, 250)
    assert job.status == "running"
    assert job.total_items == 250
    assert job.started_at is not None
    sizes = [len(batch.item_ids) for batch in job.batches.order_by("number")]
    assert sizes == [100, 100, 50]
    items = [item for batch in job.batches.order_by("number") for item in batch.item_ids]
    assert items == list(range(250))


def test_progress_moves_with_each_batch(alice: User, counting: Counting):
    job = start(alice, 250)
    seen = []
    for batch_id in batch_ids(job):
        run_batch(batch_id)
        job.refresh_from_db()
        seen.append((job.status, job.progress_percent))
    assert seen == [("running", 40), ("running", 80), ("completed", 100)]
    assert job.completed_at is not None
    assert job.result_data == {"counted": job.processed_items}


def test_an_item_that_raises_fails_alone_with_its_reason(alice: User, counting: Counting):
    job = start(alice, 20)
    run_batch(*batch_ids(job))
    job.refresh_from_db()
    assert job.status == "completed"
    assert counts(job) == (18, 1, 1)
    assert sorted(counting.saved) == [n for n in range(20) if n not in (7, 13)]
    failure = ItemFailure.objects.get(job=job)
    assert (failure.item_id, failure.error_class) == (13, "ArithmeticError")
    assert failure.message == "13 brings bad luck"


def test_a_job_without_items_is_complete_at_once(alice: User, counting: Counting):
    job = start(alice, 0)
    assert (job.status, job.progress_percent, counts(job)) == ("completed", 100, (0, 0, 0))


def test_a_job_that_cannot_be_planned_fails_with_the_reason(alice: User, counting: Counting):
    job = start(alice, count=-1)
    assert job.status == "failed"
    assert job.error_message == "Planning failed: ValueError: there are no -1 numbers"
    _, is_new = enqueue(alice, "counting", {"count": 1})
    assert is_new


def test_a_message_delivered_twice_changes_nothing(alice: User, counting: Counting):
    job = start(alice, 150)
    first, _ = batch_ids(job)
    run_batch(first)
    run_batch(first)
    plan_job(str(job.pk))
    job.refresh_from_db()
    assert counts(job) == (98, 1, 1)
    assert len(batch_ids(job)) == 2
    assert sorted(counting.saved) == [n for n in range(100) if n not in (7, 13)]


def test_messages_for_what_was_deleted_are_dropped(alice: User, counting: Counting):
    job = start(alice, 10)
    (batch_id,) = batch_ids(job)
    alice.delete()
    run_batch(batch_id)
    plan_job(str(job.pk))
    plan_job(str(uuid.uuid4()))
    assert counting.saved == []


def test_a_process_that_lost_its_lease_writes_nothing(alice: User, counting: Counting):
    """Somebody else claims the batch while the first process still computes."""
    job = start(alice, 10)
    (batch_id,) = batch_ids(job)
    taken_over: list[bool] = []

    def compute(item_ids: Sequence[int]) -> list[int]:
        if not taken_over:
            taken_over.append(True)
            JobBatch.objects.filter(pk=batch_id).update(status="pending")
            run_batch(batch_id)
        return list(item_ids)

    counting.compute = compute  # type: ignore[method-assign]
    run_batch(batch_id)
    job.refresh_from_db()
    assert (job.status, counts(job)) == ("completed", (10, 0, 0))
    assert counting.saved == list(range(10))
    batch = JobBatch.objects.get(pk=batch_id)
    assert (batch.status, batch.attempts, batch.claim_seq) == ("done", 2, 2)


def test_a_batch_of_a_job_that_ended_meanwhile_writes_nothing(alice: User, counting: Counting):
    job = start(alice, 10)
    (batch_id,) = batch_ids(job)

    def compute(item_ids: Sequence[int]) -> list[int]:
        assert job.fail("stopped")
        return list(item_ids)

    counting.compute = compute  # type: ignore[method-assign]
    run_batch(batch_id)
    job.refresh_from_db()
    assert (job.status, job.error_message, counts(job)) == ("failed", "stopped", (0, 0, 0))
    assert not job.fail("again")


def test_a_second_request_gets_the_job_that_is_under_way(
    alice: User, bob: User, counting: Counting
):
    job, is_new = enqueue(alice, "counting", {"count": 1})
    again, is_new_again = enqueue(alice, "counting", {"count": 1})
    other, is_new_for_bob = enqueue(bob, "counting", {"count": 1})
    assert (again, is_new, is_new_again, is_new_for_bob) == (job, True, False, True)
    assert other != job
    plan_job(str(job.pk))
    run_batch(*batch_ids(job))
    third, is_new_third = enqueue(alice, "counting", {"count": 1})
    assert third != job
    assert is_new_third


@pytest.mark.django_db(transaction=True)
def test_simultaneous_requests_make_one_job(alice: User, counting: Counting):
    barrier = Barrier(8)

    def request() -> uuid.UUID:
        barrier.wait()
        try:
            return enqueue(alice, "counting", {"count": 1})[0].pk
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        jobs = {future.result() for future in [pool.submit(request) for _ in range(8)]}
    assert jobs == set(BackgroundJob.objects.values_list("pk", flat=True))
    assert len(jobs) == 1


@pytest.mark.django_db(transaction=True)
def test_the_last_two_batches_at_once_complete_the_job(alice: User, counting: Counting):
    """Neither must take the other for unfinished."""
    job = start(alice, 200)
    barrier = Barrier(2)

    def compute(item_ids: Sequence[int]) -> list[int]:
        barrier.wait()
        return list(item_ids)

    counting.compute = compute  # type: ignore[method-assign]

    def run(batch_id: int) -> None:
        try:
            run_batch(batch_id)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, batch_ids(job)))
    job.refresh_from_db()
    assert (job.status, counts(job)) == ("completed", (200, 0, 0))


def test_a_finished_batch_brings_the_next_one(alice: User, counting: Counting):
    """Four batches are in the queue at first; each finished one brings one more."""
    job = start(alice, 700)
    assert dispatched(job) == [1, 2, 3, 4]
    run_batch(batch_ids(job)[2])
    assert dispatched(job) == [1, 2, 3, 4, 5]


def dispatched(job: BackgroundJob) -> list[int]:
    told = job.batches.filter(dispatched_at__isnull=False)
    return list(told.order_by("number").values_list("number", flat=True))
