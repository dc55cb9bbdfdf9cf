"""The life of a job, driven by the tests' own job type through the functions of the tasks."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from django.db import IntegrityError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from jobs import runner
from jobs.job_types import LeaseLost
from jobs.models import BackgroundJob, ItemFailure, JobBatch
from jobs.reconciler import reconcile
from jobs.runner import MAX_ATTEMPTS, enqueue, retry_failed
from jobs.tasks import plan_job
from scribes.models import User
from tests.helpers.counting import Counting, counted
from tests.helpers.factories import make_job
from tests.helpers.jobs import (
    batch_ids,
    claim,
    expire_leases,
    item_counts,
    run_batch,
    run_job,
    start_counting,
)
from tests.helpers.processes import run_concurrently


def sizes(job: BackgroundJob, **fields: Any) -> list[int]:
    batches = job.batches.filter(**fields).order_by("number")
    return [len(batch.item_ids) for batch in batches]


# --- Enqueue --------------------------------------------------------------------------------


def test_enqueue_returns_the_active_job_of_the_user_and_type(alice: User, bob: User):
    job, is_new = enqueue(alice, "counting", {"count": 1})
    others, is_new_for_bob = enqueue(bob, "counting", {"count": 1})
    regeneration, is_new_for_its_type = enqueue(alice, "embedding_regeneration", {})
    again, is_new_again = enqueue(alice, "counting", {"count": 1})
    assert (is_new, is_new_for_bob, is_new_for_its_type, is_new_again) == (True, True, True, False)
    assert again == job
    assert len({job, others, regeneration}) == 3
    run_job(job)
    third, is_new_third = enqueue(alice, "counting", {"count": 1})
    assert third != job
    assert is_new_third


@pytest.mark.django_db(transaction=True)
def test_enqueue_makes_one_job_of_50_simultaneous_requests(alice: User):
    jobs = run_concurrently(50, lambda _: enqueue(alice, "counting", {"count": 1})[0].pk)
    assert set(jobs) == set(BackgroundJob.objects.values_list("pk", flat=True))
    assert len(set(jobs)) == 1


def test_enqueue_makes_a_job_when_the_active_one_just_ended(alice: User):
    """It ends after the INSERT was refused, and before the active job is looked up."""
    first, _ = enqueue(alice, "counting", {"count": 1})

    def end_before_lookup(execute: Callable[..., Any], sql: str, *args: Any) -> Any:
        if sql.startswith("SELECT"):
            BackgroundJob.objects.filter(pk=first.pk).update(status="cancelled")
        return execute(sql, *args)

    with connection.execute_wrapper(end_before_lookup):
        second, is_new = enqueue(alice, "counting", {"count": 2})
    assert is_new
    assert second != first
    first.refresh_from_db()
    assert (first.status, second.status) == ("cancelled", "queued")


@pytest.mark.django_db(transaction=True)
def test_enqueue_raises_when_the_user_was_deleted(alice: User):
    user = User.objects.get(pk=alice.pk)
    alice.delete()
    with pytest.raises(IntegrityError):
        enqueue(user, "counting", {"count": 1})


def test_retry_failed_takes_the_failed_items_only(with_failures: BackgroundJob):
    retried = retry_failed(with_failures)
    assert retried
    retry, is_new = retried
    assert is_new
    assert retry.retry_of == with_failures
    assert retry.parameters == with_failures.parameters | {"item_ids": [3, 13, 23]}
    assert counted(run_job(retry)) == [3, 13, 23]


def test_retry_failed_starts_nothing_when_nothing_failed(alice: User):
    assert retry_failed(make_job(alice, status="completed")) is None
    assert BackgroundJob.objects.count() == 1


# --- Plan -----------------------------------------------------------------------------------


def test_plan_makes_batches_of_100_items(alice: User):
    job = start_counting(alice, 250)
    assert job.status == "running"
    assert job.total_items == 250
    assert job.started_at is not None
    assert sizes(job) == [100, 100, 50]
    items = [item for batch in job.batches.order_by("number") for item in batch.item_ids]
    assert items == list(range(250))


@pytest.mark.parametrize(("weight", "expected"), [(400, [2] * 5), (500, [2] * 5), (501, [1] * 10)])
def test_plan_makes_smaller_batches_of_heavy_items(alice: User, weight: int, expected: list[int]):
    assert sizes(start_counting(alice, 10, weight=weight)) == expected


def test_plan_gives_an_item_above_the_limit_its_own_batch(alice: User):
    assert sizes(start_counting(alice, 3, weight=5 * Counting.max_batch_weight)) == [1, 1, 1]


def test_plan_completes_a_job_without_items(alice: User):
    job = start_counting(alice, 0)
    assert (job.status, job.progress_percent, item_counts(job)) == ("completed", 100, (0, 0, 0))


def test_plan_fails_the_job_with_the_reason(alice: User):
    job = start_counting(alice, count=-1)
    assert job.status == "failed"
    assert job.error_message == "Planning failed: ValueError: there are no -1 numbers"
    assert enqueue(alice, "counting", {"count": 1})[1]


def test_plan_fails_a_job_whose_type_is_gone(alice: User):
    job = make_job(alice, job_type="retired_type")
    plan_job(str(job.pk))
    job.refresh_from_db()
    assert (job.status, job.error_message) == (
        "failed",
        "Planning failed: KeyError: 'retired_type'",
    )


# --- Run ------------------------------------------------------------------------------------


def test_progress_moves_with_each_batch(alice: User):
    job = start_counting(alice, 250)
    seen = []
    for batch_id in batch_ids(job):
        run_batch(batch_id)
        job.refresh_from_db()
        seen.append((job.status, job.progress_percent))
    assert seen == [("running", 40), ("running", 80), ("completed", 100)]
    assert job.completed_at is not None
    assert counted(job) == list(range(250))


def test_result_data_grows_with_each_batch(alice: User):
    job = start_counting(alice, 250)
    sums = [sum(range(100)), sum(range(200))]
    for batch_id, expected in zip(batch_ids(job), sums, strict=False):
        run_batch(batch_id)
        job.refresh_from_db()
        assert job.result_data == {"sum": expected}
    run_job(job)
    job.refresh_from_db()
    assert job.result_data == {"sum": sum(range(250)), "counted": 250}


def test_result_data_is_complete_when_items_run_one_by_one(alice: User):
    job = run_job(start_counting(alice, 20, plans={"13": "raise", "7": "skip"}))
    assert job.result_data == {"sum": sum(range(20)) - 13 - 7, "counted": 18}


@pytest.mark.parametrize(
    ("plan", "error", "message"),
    [("raise", "ArithmeticError", "13 brings bad luck"), ("memory", "MemoryError", "")],
)
def test_item_that_raises_fails_alone_with_its_reason(
    alice: User, plan: str, error: str, message: str
):
    job = run_job(start_counting(alice, 20, plans={"13": plan, "7": "skip"}))
    assert job.status == "completed"
    assert item_counts(job) == (18, 1, 1)
    assert counted(job) == [n for n in range(20) if n not in (7, 13)]
    failure = ItemFailure.objects.get(job=job)
    assert (failure.item_id, failure.error_class, failure.message) == (13, error, message)


def test_failure_stores_a_message_that_postgresql_refuses(
    alice: User, monkeypatch, caplog: pytest.LogCaptureFixture
):
    # pytest-xdist cannot pass half a character on, and the log would quote it.
    caplog.set_level(logging.CRITICAL)

    def compute(self, *args):
        raise ValueError("a zero \0 and half a character \ud83d")

    monkeypatch.setattr(Counting, "compute", compute)
    run_job(start_counting(alice, 1))
    assert ItemFailure.objects.get().message == "a zero \\0 and half a character \\ud83d"


def test_item_has_one_failure_in_a_job(with_failures: BackgroundJob):
    with pytest.raises(IntegrityError):
        ItemFailure.objects.create(job=with_failures, item_id=13, error_class="E", message="")


def test_repeated_message_changes_nothing(alice: User):
    job = start_counting(alice, 150)
    first, _ = batch_ids(job)
    run_batch(first)
    run_batch(first)
    plan_job(str(job.pk))
    job.refresh_from_db()
    assert (job.status, item_counts(job)) == ("running", (100, 0, 0))
    assert len(batch_ids(job)) == 2
    assert counted(job) == list(range(100))


@pytest.mark.parametrize("deleted", ["user", "job"])
def test_message_of_a_deleted_job_is_dropped(alice: User, deleted: str):
    job = start_counting(alice, 10)
    job_id, (batch_id,) = job.pk, batch_ids(job)
    (alice if deleted == "user" else job).delete()
    run_batch(batch_id)
    plan_job(str(job_id))
    plan_job(str(uuid.uuid4()))
    reconcile()
    assert counted(BackgroundJob(pk=job_id)) == []
    assert not BackgroundJob.objects.exists()


def test_batch_of_another_process_is_left_alone(alice: User):
    job = start_counting(alice, 10)
    batch = claim(job, "one message")
    runner.run_batch(batch.pk, "another message")
    assert counted(job) == []


def test_repeated_message_takes_over_its_own_batch(alice: User):
    """A message comes again when the process that had it died."""
    job = start_counting(alice, 10)
    first = claim(job, "the message")
    runner.run_batch(first.pk, "the message")
    assert counted(job) == list(range(10))
    assert not first.finish()
    assert not first.renew()


def test_work_time_is_that_of_the_batches(alice: User):
    job = start_counting(alice, 200)
    assert (job.work_time, job.worked_until) == (timedelta(), None)
    run_job(job, batches=1)
    half = job.work_time
    assert half > timedelta()
    run_job(job)
    assert job.work_time > half
    assert job.worked_until is not None


# --- Lost leases ----------------------------------------------------------------------------


def test_process_that_lost_its_lease_writes_nothing(alice: User, settings, monkeypatch):
    """While it computes, its lease expires and another process finishes the batch. The job still runs,
    since it has a second batch: only the lease can stop the first process."""
    settings.JOB_BATCH_SIZE = 10
    job = start_counting(alice, 20)
    batch_id, other_id = batch_ids(job)
    compute = Counting.compute

    def slow_compute(self, *args):
        monkeypatch.setattr(Counting, "compute", compute)
        expire_leases(job)
        reconcile()
        run_batch(batch_id)
        return compute(self, *args)

    monkeypatch.setattr(Counting, "compute", slow_compute)
    run_batch(batch_id)
    job.refresh_from_db()
    assert (job.status, item_counts(job)) == ("running", (10, 0, 0))
    assert counted(job) == list(range(10))
    batch = JobBatch.objects.get(pk=batch_id)
    assert (batch.status, batch.attempts, batch.claim_seq) == ("done", 2, 2)
    run_batch(other_id)
    job.refresh_from_db()
    assert job.result_data == {"sum": sum(range(20)), "counted": 20}


@pytest.mark.parametrize("ending", ["cancel", "fail"])
def test_batch_of_a_job_that_just_ended_writes_nothing(alice: User, monkeypatch, ending: str):
    job = start_counting(alice, 10)
    compute = Counting.compute

    def ended_meanwhile(self, *args):
        assert job.cancel() if ending == "cancel" else job.fail("stopped")
        return compute(self, *args)

    monkeypatch.setattr(Counting, "compute", ended_meanwhile)
    run_batch(*batch_ids(job))
    job.refresh_from_db()
    assert (job.is_terminal, item_counts(job), job.result_data) == (True, (0, 0, 0), None)
    assert counted(job) == []
    assert job.batches.get().status == "leased"


@pytest.mark.parametrize("ending", ["cancel", "fail"])
def test_ended_job_never_changes_again(alice: User, ending: str):
    job = start_counting(alice, 10)
    assert job.cancel() if ending == "cancel" else job.fail("stopped")
    before = BackgroundJob.objects.values().get()
    assert not job.cancel()
    assert not job.fail("again")
    assert not job.record_progress(timezone.now(), processed=1)
    assert not job.start(5)
    plan_job(str(job.pk))
    run_batch(*batch_ids(job))
    reconcile()
    assert BackgroundJob.objects.values().get() == before


class Clock:
    """Stands in for the module `time` in the runner. It moves only when a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(runner, "time", clock)
    return clock


def test_lease_is_renewed_in_time_but_not_at_each_call(
    alice: User, clock: Clock, monkeypatch, settings
):
    """Calls in each second of ten leases renew the lease once in each third of it."""
    settings.JOB_LEASE_SECONDS = 100
    job = start_counting(alice, 1)
    renewals = [0]

    def compute(self, job, item_ids, renew):
        for second in range(1000):
            with CaptureQueriesContext(connection) as queries:
                renew()
            renewals.extend([second] if queries else [])
            clock.now += 1
        return []

    monkeypatch.setattr(Counting, "compute", compute)
    run_job(job)
    assert len(renewals) == 30
    assert {later - earlier for earlier, later in pairwise(renewals)} <= {33, 34}


@pytest.mark.parametrize("lost", ["lease", "job"])
def test_process_stops_computing_when_its_lease_is_lost(
    alice: User, clock: Clock, monkeypatch, settings, caplog: pytest.LogCaptureFixture, lost: str
):
    """It does not try the items one by one, and records no failures."""
    job = start_counting(alice, 10)
    calls: list[list[int]] = []

    def compute(self, job, item_ids, renew):
        calls.append(item_ids)
        if lost == "lease":
            JobBatch.objects.update(claim_seq=99)
        else:
            job.cancel()
        clock.now += settings.JOB_LEASE_SECONDS
        renew()
        return []

    monkeypatch.setattr(Counting, "compute", compute)
    with caplog.at_level(logging.INFO, "jobs.runner"):
        run_batch(*batch_ids(job))
    assert calls == [list(range(10))]
    assert "this process lost the lease" in caplog.text
    assert "one by one" not in caplog.text
    assert not ItemFailure.objects.exists()
    assert job.batches.get().status == "leased"


@pytest.mark.parametrize("calls_renew", [True, False])
def test_items_one_by_one_stop_when_the_lease_is_lost(
    alice: User, clock: Clock, monkeypatch, settings, calls_renew: bool
):
    """Also when the job type itself never renews."""
    job = start_counting(alice, 10)
    calls: list[list[int]] = []

    def compute(self, job, item_ids, renew):
        calls.append(item_ids)
        if len(item_ids) > 1:
            raise ValueError("some item is bad")
        if item_ids == [3]:
            JobBatch.objects.update(claim_seq=99)
        clock.now += settings.JOB_LEASE_SECONDS
        if calls_renew:
            renew()
        return item_ids

    monkeypatch.setattr(Counting, "compute", compute)
    run_batch(*batch_ids(job))
    assert calls[1:] == [[0], [1], [2], [3]]
    assert not ItemFailure.objects.exists()


# --- Attempts -------------------------------------------------------------------------------


def test_batch_that_cannot_be_written_is_tried_again(alice: User, monkeypatch):
    job = start_counting(alice, 10)
    save = Counting.save

    def full_disk(self, *args):
        save(self, *args)
        raise OSError("no space left")

    monkeypatch.setattr(Counting, "save", full_disk)
    run_batch(*batch_ids(job))
    batch = job.batches.get()
    assert (batch.status, batch.error) == ("pending", "OSError: no space left")
    assert counted(job) == []
    monkeypatch.undo()
    reconcile()
    run_batch(*batch_ids(job))
    job.refresh_from_db()
    assert (job.status, item_counts(job)) == ("completed", (10, 0, 0))
    assert job.result_data == {"sum": sum(range(10)), "counted": 10}
    assert counted(job) == list(range(10))


def lose_attempts(job: BackgroundJob, attempts: int) -> None:
    """Let this many processes die with the job's first batch."""
    for number in range(attempts):
        claim(job, f"message {number}")
        expire_leases(job)
        JobBatch.release_expired()


def test_batch_is_computed_in_its_last_attempt(alice: User):
    job = start_counting(alice, 10)
    lose_attempts(job, MAX_ATTEMPTS - 1)
    run_job(job)
    assert (job.status, item_counts(job)) == ("completed", (10, 0, 0))
    batch = job.batches.get()
    assert (batch.status, batch.attempts) == ("done", MAX_ATTEMPTS) == ("done", 3)


@pytest.mark.parametrize(
    ("count", "parts"),
    [(100, [10] * 10), (15, [2] * 7 + [1]), (10, [1] * 10), (2, [1, 1])],
)
def test_batch_without_attempts_left_is_split(alice: User, count: int, parts: list[int]):
    job = start_counting(alice, count)
    lose_attempts(job, MAX_ATTEMPTS)
    run_job(job)
    assert sizes(job, status="dead") == [count]
    assert sizes(job, status="pending") == parts
    assert (job.status, item_counts(job)) == ("running", (0, 0, 0))
    run_job(job)
    assert (job.status, item_counts(job)) == ("completed", (count, 0, 0))
    assert counted(job) == list(range(count))


def test_item_without_attempts_left_has_failed(alice: User):
    job = start_counting(alice, 1)
    lose_attempts(job, MAX_ATTEMPTS)
    run_job(job)
    assert (job.status, item_counts(job)) == ("completed", (0, 1, 0))
    failure = job.failures.get()
    assert (failure.item_id, failure.error_class) == (0, "AttemptsUsedUp")
    assert "died or hung" in failure.message


def test_item_that_kills_its_process_fails_alone(alice: User):
    """The process with item 42 never ends, in batches that get smaller and smaller."""
    job = start_counting(alice, 100)
    claims = 0
    while not job.is_terminal:
        batch = job.batches.pending().order_by("number")[0]
        if 42 in batch.item_ids and batch.attempts < MAX_ATTEMPTS:
            assert JobBatch.claim(batch.pk, "a process that dies")
            expire_leases(job)
            claims += 1
        else:
            run_batch(batch.pk)
        reconcile()
        job.refresh_from_db()
    assert (job.status, item_counts(job)) == ("completed", (99, 1, 0))
    assert counted(job) == [n for n in range(100) if n != 42]
    assert claims == 9
    failure = job.failures.get()
    assert (failure.item_id, failure.error_class) == (42, "AttemptsUsedUp")
    assert "died or hung" in failure.message


@pytest.mark.parametrize("count", [1, 10])
@pytest.mark.parametrize("lost", ["lease", "job"])
def test_batch_is_given_up_only_by_its_holder(alice: User, count: int, lost: str):
    job = start_counting(alice, count)
    stale = claim(job, "one message")
    if lost == "lease":
        JobBatch.objects.update(claim_seq=99)
    else:
        job.cancel()
    before = list(JobBatch.objects.values())
    with pytest.raises(LeaseLost):
        runner._give_up(stale, Counting())
    assert list(JobBatch.objects.values()) == before
    assert not ItemFailure.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_batches_can_be_split_at_the_same_time(alice: User, settings):
    """The parts get numbers one after the other."""
    settings.JOB_BATCH_SIZE = 10
    for _ in range(5):
        job = start_counting(alice, 80)
        ids = batch_ids(job)
        JobBatch.objects.filter(job=job).update(attempts=MAX_ATTEMPTS)
        run_concurrently(8, lambda n, ids=ids: run_batch(ids[n]))  # type: ignore[misc]
        assert sizes(job, status="dead") == [10] * 8
        assert sizes(job, status="pending") == [1] * 80
        assert list(job.batches.values_list("number", flat=True)) == list(range(1, 89))
        job.cancel()


# --- At the same time -----------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_simultaneous_last_batches_complete_the_job(alice: User):
    """No batch takes another for unfinished, and each is counted."""
    for _ in range(10):
        job = start_counting(alice, 800)
        ids = batch_ids(job)
        run_concurrently(8, lambda n, ids=ids: run_batch(ids[n]))  # type: ignore[misc]
        job.refresh_from_db()
        assert (job.status, item_counts(job)) == ("completed", (800, 0, 0))
        assert job.result_data == {"sum": sum(range(800)), "counted": 800}


@pytest.mark.django_db(transaction=True)
def test_message_delivered_eight_times_at_once_has_one_effect(alice: User):
    for _ in range(10):
        job, _ = enqueue(alice, "counting", {"count": 30})
        run_concurrently(8, lambda _, job=job: plan_job(str(job.pk)))  # type: ignore[misc]
        (batch_id,) = batch_ids(job)
        run_concurrently(8, lambda _, batch_id=batch_id: run_batch(batch_id))  # type: ignore[misc]
        assert JobBatch.objects.get(pk=batch_id).attempts == 1
        job.refresh_from_db()
        assert (job.status, item_counts(job)) == ("completed", (30, 0, 0))
        assert counted(job) == list(range(30))


def dispatched(job: BackgroundJob) -> list[int]:
    batches = job.batches.filter(dispatched_at__isnull=False)
    return list(batches.order_by("number").values_list("number", flat=True))


def test_finished_batch_dispatches_the_next_one(alice: User):
    """Four batches are in the queue at first; each finished one adds one more."""
    job = start_counting(alice, 700)
    assert dispatched(job) == [1, 2, 3, 4]
    run_batch(batch_ids(job)[2])
    assert dispatched(job) == [1, 2, 3, 4, 5]
