"""The leases of batches: one process at a time has a batch, and a process that lost it writes nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from threading import Event
from typing import Any

import pytest
from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone

from jobs.models import BackgroundJob, JobBatch
from scribes.models import User
from tests.helpers.database import is_lock_awaited
from tests.helpers.jobs import LONG_AGO, batch_ids, claim, expire_leases, in_flight, start_counting
from tests.helpers.processes import LONGEST_WAIT_SECONDS, eventually, run_concurrently

BATCH_SIZE = 10
JOB_STATUSES_THAT_STOP_WORK = ["queued", "completed", "failed", "cancelled"]

ENDINGS: dict[str, Callable[[JobBatch], bool]] = {
    "finish": lambda batch: batch.finish(),
    "release": lambda batch: batch.release("it raised"),
    "mark_dead": lambda batch: batch.mark_dead(),
}


@pytest.fixture(autouse=True)
def batch_size(settings) -> None:
    settings.JOB_BATCH_SIZE = BATCH_SIZE


@pytest.fixture
def job(alice: User) -> BackgroundJob:
    """It has three batches."""
    return start_counting(alice, 3 * BATCH_SIZE)


def rows() -> list[dict[str, Any]]:
    return [dict(row) for row in JobBatch.objects.order_by("pk").values()]


def set_status(job: BackgroundJob, status: str) -> None:
    BackgroundJob.objects.filter(pk=job.pk).update(status=status)


def seconds_left(batch: JobBatch) -> float:
    batch.refresh_from_db()
    assert batch.lease_expires_at
    return (batch.lease_expires_at - timezone.now()).total_seconds()


# --- Claim ----------------------------------------------------------------------------------


def test_claim_holds_one_pending_batch(job: BackgroundJob):
    batch = claim(job, "the message", number=2)
    assert (batch.number, batch.status, batch.claimed_by) == (2, "leased", "the message")
    assert (batch.attempts, batch.claim_seq) == (1, 1)
    assert 0 < seconds_left(batch) <= settings.JOB_LEASE_SECONDS
    assert [row["status"] for row in rows()] == ["pending", "leased", "pending"]


def test_claim_counts_attempts_and_claims(job: BackgroundJob):
    for number in (1, 2, 3):
        batch = claim(job, f"message {number}")
        assert (batch.attempts, batch.claim_seq) == (number, number)
        batch.release("it raised")


@pytest.mark.parametrize("claimant", ["another message", ""])
def test_claim_refuses_the_batch_of_another_process(job: BackgroundJob, claimant: str):
    held = claim(job, "one message")
    assert JobBatch.claim(held.pk, claimant) is None


def test_claim_takes_over_the_batch_of_the_same_message(job: BackgroundJob):
    """A message comes again when its process has died."""
    first = claim(job, "the message")
    assert claim(job, "the message").claim_seq == first.claim_seq + 1


def test_claim_without_a_message_never_takes_over(job: BackgroundJob):
    """Processes without a message are not the same process."""
    held = claim(job, "")
    assert JobBatch.claim(held.pk, "") is None


@pytest.mark.parametrize("ending", ["finish", "mark_dead"])
def test_claim_refuses_an_ended_batch_of_the_same_message(job: BackgroundJob, ending: str):
    batch = claim(job, "the message")
    assert ENDINGS[ending](batch)
    assert JobBatch.claim(batch.pk, "the message") is None


@pytest.mark.parametrize("status", JOB_STATUSES_THAT_STOP_WORK)
def test_claim_refuses_batches_unless_the_job_is_running(job: BackgroundJob, status: str):
    held = claim(job, "the message")
    set_status(job, status)
    assert JobBatch.claim(held.pk, "the message") is None
    assert JobBatch.claim(batch_ids(job)[1], "the message") is None


def test_claim_looks_at_the_job_of_the_batch(job: BackgroundJob, bob: User):
    others = start_counting(bob, BATCH_SIZE)
    job.cancel()
    assert JobBatch.claim(batch_ids(job)[0], "a message") is None
    assert claim(others).job == others


def test_claim_refuses_a_deleted_batch(job: BackgroundJob):
    batch_id = batch_ids(job)[0]
    job.delete()
    assert JobBatch.claim(batch_id, "the message") is None


@pytest.mark.django_db(transaction=True)
def test_claim_gives_a_batch_to_one_of_eight_processes(job: BackgroundJob):
    for batch_id in batch_ids(job):
        claims = run_concurrently(8, partial(claim_for_process, batch_id))
        assert len([batch for batch in claims if batch]) == 1
        assert JobBatch.objects.get(pk=batch_id).attempts == 1


def claim_for_process(batch_id: int, n: int) -> JobBatch | None:
    return JobBatch.claim(batch_id, f"message {n}")


@pytest.mark.django_db(transaction=True)
def test_claim_reads_the_batch_again_after_waiting_for_it(job: BackgroundJob):
    """The second process waits for the row while the first one claims it."""
    batch_id = batch_ids(job)[0]
    is_claimed = Event()

    def process(n: int) -> JobBatch | None:
        if n == 1:
            assert is_claimed.wait(LONGEST_WAIT_SECONDS)
            return JobBatch.claim(batch_id, "another message")
        with transaction.atomic():
            batch = JobBatch.claim(batch_id, "one message")
            is_claimed.set()
            eventually(is_lock_awaited)
            return batch

    first, second = run_concurrently(2, process)
    assert first
    assert second is None


# --- Renew ----------------------------------------------------------------------------------


def test_renew_extends_the_lease_of_its_batch_only(job: BackgroundJob):
    batch, other = claim(job), claim(job, "another message", number=2)
    expire_leases(job)
    assert batch.renew()
    assert 0 < seconds_left(batch) <= settings.JOB_LEASE_SECONDS
    assert seconds_left(other) < 0


def test_renew_fails_when_another_process_claimed_the_batch(job: BackgroundJob):
    first = claim(job, "one message")
    expire_leases(job)
    JobBatch.release_expired()
    second = claim(job, "another message")
    expire_leases(job)
    assert not first.renew()
    assert seconds_left(second) < 0
    assert second.renew()


def test_renew_fails_when_the_lease_was_released(job: BackgroundJob):
    batch = claim(job)
    expire_leases(job)
    JobBatch.release_expired()
    before = rows()
    assert not batch.renew()
    assert rows() == before


@pytest.mark.parametrize("status", JOB_STATUSES_THAT_STOP_WORK)
def test_renew_fails_unless_the_job_is_running(job: BackgroundJob, status: str):
    batch = claim(job)
    set_status(job, status)
    before = rows()
    assert not batch.renew()
    assert rows() == before


# --- End ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "status"), [("finish", "done"), ("release", "pending"), ("mark_dead", "dead")]
)
def test_lease_ends_in_the_state_of_its_ending(job: BackgroundJob, ending: str, status: str):
    batch = claim(job)
    claim(job, "another message", number=2)
    assert ENDINGS[ending](batch)
    batch.refresh_from_db()
    assert (batch.status, batch.lease_expires_at) == (status, None)
    assert [row["status"] for row in rows()] == [status, "leased", "pending"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_lease_cannot_be_ended_by_a_process_that_lost_it(job: BackgroundJob, ending: str):
    """The batch is leased again, but by another process."""
    first = claim(job, "one message")
    expire_leases(job)
    JobBatch.release_expired()
    claim(job, "another message")
    before = rows()
    assert not ENDINGS[ending](first)
    assert rows() == before


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("status", ["pending", "done", "dead"])
def test_lease_cannot_be_ended_twice(job: BackgroundJob, ending: str, status: str):
    batch = claim(job)
    JobBatch.objects.filter(pk=batch.pk).update(status=status)
    before = rows()
    assert not ENDINGS[ending](batch)
    assert rows() == before


def test_release_stores_the_error_and_asks_for_a_message(job: BackgroundJob):
    batch = claim(job)
    batch.release("a zero \0")
    batch.refresh_from_db()
    assert (batch.error, batch.dispatched_at) == ("a zero \\0", None)


# --- Expired leases -------------------------------------------------------------------------


def test_release_expired_frees_expired_leases_only(job: BackgroundJob):
    expired = claim(job, number=1)
    expire_leases(job)
    claim(job, number=2)
    assert JobBatch.release_expired() == 1
    assert [row["status"] for row in rows()] == ["pending", "leased", "pending"]
    expired.refresh_from_db()
    assert (expired.lease_expires_at, expired.dispatched_at) == (None, None)
    assert "died or hung" in expired.error
    assert JobBatch.release_expired() == 0


@pytest.mark.parametrize("status", ["pending", "done", "dead"])
def test_release_expired_keeps_batches_that_are_not_leased(job: BackgroundJob, status: str):
    JobBatch.objects.update(status=status, lease_expires_at=LONG_AGO)
    before = rows()
    assert JobBatch.release_expired() == 0
    assert rows() == before


@pytest.mark.parametrize("status", JOB_STATUSES_THAT_STOP_WORK)
def test_release_expired_keeps_batches_of_ended_jobs(job: BackgroundJob, status: str):
    claim(job)
    expire_leases(job)
    set_status(job, status)
    before = rows()
    assert JobBatch.release_expired() == 0
    assert rows() == before


def test_batches_presumed_lost_are_pending_and_sent_long_ago(job: BackgroundJob):
    long_ago, lately = (timezone.now() - timedelta(seconds=seconds) for seconds in (61, 59))
    claim(job, number=1)
    JobBatch.objects.update(dispatched_at=long_ago)
    job.batches.filter(number=3).update(dispatched_at=lately)
    assert list(JobBatch.objects.presumed_lost(60).values_list("number", flat=True)) == [2]
    JobBatch.objects.update(dispatched_at=None)
    assert not JobBatch.objects.presumed_lost(60)


def test_of_running_jobs_can_be_limited_to_a_job_type(job: BackgroundJob):
    batches = JobBatch.objects
    assert batches.of_running_jobs().count() == 3
    assert batches.of_running_jobs(["counting"]).count() == 3
    assert not batches.of_running_jobs(["embedding_regeneration"])


# --- Dispatch -------------------------------------------------------------------------------


@pytest.fixture
def waiting(job: BackgroundJob) -> BackgroundJob:
    """A job whose three batches all wait for a message."""
    JobBatch.objects.update(dispatched_at=None)
    return job


def numbers(batches: list[JobBatch]) -> list[int]:
    return [batch.number for batch in batches]


def test_dispatch_marks_the_next_batches_in_order(waiting: BackgroundJob):
    assert numbers(JobBatch.dispatch(waiting, 2)) == [1, 2]
    assert [row["dispatched_at"] is None for row in rows()] == [False, False, True]
    assert numbers(JobBatch.dispatch(waiting, 2)) == [3]
    assert numbers(JobBatch.dispatch(waiting, 2)) == []


def test_dispatch_skips_batches_that_are_not_pending(waiting: BackgroundJob):
    claim(waiting, number=1)
    claim(waiting, number=2).finish()
    assert numbers(JobBatch.dispatch(waiting, 3)) == [3]


def test_dispatch_leaves_other_jobs_alone(waiting: BackgroundJob, bob: User):
    others = start_counting(bob, BATCH_SIZE)
    others.batches.update(dispatched_at=None)
    assert {batch.pk for batch in JobBatch.dispatch(waiting, 9)} == set(batch_ids(waiting))
    assert others.batches.get().dispatched_at is None


@pytest.mark.django_db(transaction=True)
def test_dispatch_gives_two_processes_different_batches(waiting: BackgroundJob):
    """Without waiting for each other."""
    with transaction.atomic():
        first = JobBatch.dispatch(waiting, 2)
        [second] = run_concurrently(1, lambda _: JobBatch.dispatch(waiting, 2))
    assert (numbers(first), numbers(second)) == ([1, 2], [3])


def test_in_flight_counts_batches_with_a_message_or_a_process(job: BackgroundJob, bob: User):
    start_counting(bob, BATCH_SIZE)
    assert in_flight(job) == 3
    job.batches.filter(number=3).update(dispatched_at=None)
    assert in_flight(job) == 2
    first = claim(job, number=1)
    job.batches.filter(number=1).update(dispatched_at=None)
    assert in_flight(job) == 2
    first.finish()
    assert in_flight(job) == 1
    claim(job, number=2).finish()
    assert in_flight(job) == 0


# --- Numbers --------------------------------------------------------------------------------


def test_append_continues_the_numbers_of_the_job(job: BackgroundJob, bob: User):
    start_counting(bob, 5 * BATCH_SIZE)
    JobBatch.append(job, [[100, 101], [102]])
    appended = job.batches.filter(number__gt=3).values_list("number", "item_ids", "status")
    assert list(appended) == [(4, [100, 101], "pending"), (5, [102], "pending")]
    assert JobBatch.count_of(job) == 5


def test_batch_numbers_of_a_job_are_unique(job: BackgroundJob):
    with pytest.raises(IntegrityError):
        JobBatch.objects.create(job=job, number=3, item_ids=[1])
