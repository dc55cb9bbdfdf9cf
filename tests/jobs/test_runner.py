"""The life of a job, driven by the tests' own job type through the tasks' functions."""

from __future__ import annotations

import uuid

import pytest

from jobs.models import BackgroundJob, ItemFailure, JobBatch
from jobs.reconciler import reconcile
from jobs.runner import enqueue
from jobs.runner import run_batch as run_claimed
from jobs.tasks import plan_job, run_batch
from scribes.models import User
from tests.counting import Counting, counted
from tests.jobs.conftest import batch_ids, counts, start
from tests.processes import at_once


def test_planning_makes_batches_of_100(alice: User):
    job = start(alice, 250)
    assert job.status == "running"
    assert job.total_items == 250
    assert job.started_at is not None
    sizes = [len(batch.item_ids) for batch in job.batches.order_by("number")]
    assert sizes == [100, 100, 50]
    items = [item for batch in job.batches.order_by("number") for item in batch.item_ids]
    assert items == list(range(250))


def test_heavy_items_make_smaller_batches(alice: User):
    job = start(alice, 10, weight=400)
    assert [len(batch.item_ids) for batch in job.batches.all()] == [2, 2, 2, 2, 2]
    assert len(batch_ids(start_heavier(alice))) == 3


def start_heavier(user: User) -> BackgroundJob:
    BackgroundJob.objects.all().delete()
    return start(user, 3, weight=5000)


def test_progress_moves_with_each_batch(alice: User):
    job = start(alice, 250)
    seen = []
    for batch_id in batch_ids(job):
        run_batch(batch_id)
        job.refresh_from_db()
        seen.append((job.status, job.progress_percent))
    assert seen == [("running", 40), ("running", 80), ("completed", 100)]
    assert job.completed_at is not None
    assert job.result_data == {"counted": 250}
    assert counted(job) == list(range(250))


@pytest.mark.parametrize(
    ("plan", "error", "message"),
    [("raise", "ArithmeticError", "13 brings bad luck"), ("memory", "MemoryError", "")],
)
def test_an_item_that_raises_fails_alone_with_its_reason(
    alice: User, plan: str, error: str, message: str
):
    job = start(alice, 20, plans={"13": plan, "7": "skip"})
    run_batch(*batch_ids(job))
    job.refresh_from_db()
    assert job.status == "completed"
    assert counts(job) == (18, 1, 1)
    assert counted(job) == [n for n in range(20) if n not in (7, 13)]
    failure = ItemFailure.objects.get(job=job)
    assert (failure.item_id, failure.error_class, failure.message) == (13, error, message)


def test_a_job_without_items_is_complete_at_once(alice: User):
    job = start(alice, 0)
    assert (job.status, job.progress_percent, counts(job)) == ("completed", 100, (0, 0, 0))


def test_a_job_that_cannot_be_planned_fails_with_the_reason(alice: User):
    job = start(alice, count=-1)
    assert job.status == "failed"
    assert job.error_message == "Planning failed: ValueError: there are no -1 numbers"
    _, is_new = enqueue(alice, "counting", {"count": 1})
    assert is_new


def test_a_message_delivered_twice_changes_nothing(alice: User):
    job = start(alice, 150)
    first, _ = batch_ids(job)
    run_batch(first)
    run_batch(first)
    plan_job(str(job.pk))
    job.refresh_from_db()
    assert counts(job) == (100, 0, 0)
    assert len(batch_ids(job)) == 2
    assert counted(job) == list(range(100))


@pytest.mark.parametrize("deleted", ["user", "job"])
def test_messages_for_what_was_deleted_are_dropped(alice: User, deleted: str):
    job = start(alice, 10)
    job_id, (batch_id,) = job.pk, batch_ids(job)
    (alice if deleted == "user" else job).delete()
    run_batch(batch_id)
    plan_job(str(job_id))
    plan_job(str(uuid.uuid4()))
    reconcile()
    assert counted(BackgroundJob(pk=job_id)) == []
    assert not BackgroundJob.objects.exists()


def test_a_process_that_lost_its_lease_writes_nothing(alice: User, monkeypatch):
    """Its lease runs out and somebody else finishes the batch, while it still computes."""
    job = start(alice, 10)
    (batch_id,) = batch_ids(job)
    compute = Counting.compute

    def slow_compute(self, *args):
        monkeypatch.setattr(Counting, "compute", compute)
        JobBatch.objects.update(lease_expires_at="2000-01-01T00:00:00Z")
        reconcile()
        run_batch(batch_id)
        return compute(self, *args)

    monkeypatch.setattr(Counting, "compute", slow_compute)
    run_batch(batch_id)
    job.refresh_from_db()
    assert (job.status, counts(job)) == ("completed", (10, 0, 0))
    assert counted(job) == list(range(10))
    batch = JobBatch.objects.get(pk=batch_id)
    assert (batch.status, batch.attempts, batch.claim_seq) == ("done", 2, 2)


def test_a_batch_in_other_hands_is_left_alone(alice: User):
    job = start(alice, 10)
    (batch_id,) = batch_ids(job)
    assert JobBatch.claim(batch_id, "one message")
    assert JobBatch.claim(batch_id, "another message") is None
    run_claimed(batch_id, "another message")
    assert counted(job) == []


def test_a_message_that_comes_again_takes_its_own_batch_over(alice: User):
    """As it does when the process that got it first has died."""
    job = start(alice, 10)
    (batch_id,) = batch_ids(job)
    first = JobBatch.claim(batch_id, "the message")
    run_claimed(batch_id, "the message")
    assert counted(job) == list(range(10))
    assert first is not None
    assert not first.finish()
    assert not first.renew()


def test_a_batch_of_a_job_that_ended_meanwhile_writes_nothing(alice: User, monkeypatch):
    job = start(alice, 10)
    compute = Counting.compute

    def cancelled_meanwhile(self, *args):
        assert job.cancel()
        return compute(self, *args)

    monkeypatch.setattr(Counting, "compute", cancelled_meanwhile)
    run_batch(*batch_ids(job))
    job.refresh_from_db()
    assert (job.status, counts(job)) == ("cancelled", (0, 0, 0))
    assert counted(job) == []


@pytest.mark.parametrize("ending", ["cancel", "fail"])
def test_a_job_that_ended_never_changes_again(alice: User, ending: str):
    job = start(alice, 10)
    assert job.cancel() if ending == "cancel" else job.fail("stopped")
    before = BackgroundJob.objects.values().get()
    assert not job.cancel()
    assert not job.fail("again")
    assert not job.add(processed=1)
    assert not job.start(5)
    plan_job(str(job.pk))
    run_batch(*batch_ids(job))
    reconcile()
    assert BackgroundJob.objects.values().get() == before


def test_a_batch_that_cannot_be_written_is_tried_again(alice: User, monkeypatch):
    job = start(alice, 10)
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
    assert (job.status, counts(job)) == ("completed", (10, 0, 0))
    assert counted(job) == list(range(10))


def test_what_kills_its_process_is_found_and_fails_alone(alice: User):
    """A claim without an end, as often as it takes: in the batch with item 42 it never ends."""
    job = start(alice, 100)
    claims = 0
    while not job.is_terminal:
        batch = job.batches.filter(status="pending").order_by("number")[0]
        if 42 in batch.item_ids and batch.attempts < 3:
            assert JobBatch.claim(batch.pk, "a process that dies")
            JobBatch.objects.update(lease_expires_at="2000-01-01T00:00:00Z")
            claims += 1
        else:
            run_batch(batch.pk)
        reconcile()
        job.refresh_from_db()
    assert (job.status, counts(job)) == ("completed", (99, 1, 0))
    assert counted(job) == [n for n in range(100) if n != 42]
    assert claims == 9
    failure = job.failures.get()
    assert (failure.item_id, failure.error_class) == (42, "AttemptsUsedUp")
    assert "died or hung" in failure.message


def test_a_second_request_gets_the_job_that_is_under_way(alice: User, bob: User):
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
def test_simultaneous_requests_make_one_job(alice: User):
    jobs = at_once(50, lambda _: enqueue(alice, "counting", {"count": 1})[0].pk)
    assert set(jobs) == set(BackgroundJob.objects.values_list("pk", flat=True))
    assert len(set(jobs)) == 1


@pytest.mark.django_db(transaction=True)
def test_simultaneous_last_batches_complete_the_job(alice: User):
    """None must take another for unfinished, and each is counted."""
    for _ in range(10):
        job = start(alice, 800)
        ids = batch_ids(job)
        at_once(8, lambda n, ids=ids: run_batch(ids[n]))  # type: ignore[misc]
        job.refresh_from_db()
        assert (job.status, counts(job)) == ("completed", (800, 0, 0))


@pytest.mark.django_db(transaction=True)
def test_a_message_delivered_to_eight_at_once_is_served_once(alice: User):
    for _ in range(10):
        job, _ = enqueue(alice, "counting", {"count": 30})
        at_once(8, lambda _, job=job: plan_job(str(job.pk)))  # type: ignore[misc]
        (batch_id,) = batch_ids(job)
        at_once(8, lambda _, batch_id=batch_id: run_batch(batch_id))  # type: ignore[misc]
        assert JobBatch.objects.get(pk=batch_id).attempts == 1
        job.refresh_from_db()
        assert (job.status, counts(job)) == ("completed", (30, 0, 0))
        assert counted(job) == list(range(30))


def test_a_finished_batch_brings_the_next_one(alice: User):
    """Four batches are in the queue at first; each finished one brings one more."""
    job = start(alice, 700)
    assert dispatched(job) == [1, 2, 3, 4]
    run_batch(batch_ids(job)[2])
    assert dispatched(job) == [1, 2, 3, 4, 5]


def dispatched(job: BackgroundJob) -> list[int]:
    told = job.batches.filter(dispatched_at__isnull=False)
    return list(told.order_by("number").values_list("number", flat=True))
