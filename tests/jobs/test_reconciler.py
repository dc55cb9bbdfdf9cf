"""The reconciler repeats lost messages, ends jobs that are too old, and deletes old rows."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.conf import settings
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from jobs import reconciler
from jobs.models import BackgroundJob, JobBatch, JobOutcomes
from jobs.reconciler import (
    BATCH_SIZE,
    KEEP_OUTCOMES,
    dispatch_waiting_batches,
    fail_overdue_jobs,
    prune,
    reconcile,
    republish_plans,
    withdraw_lost_batches,
)
from jobs.runner import enqueue
from scribes.messaging import broker
from scribes.messaging.broker import queue_length
from scribes.messaging.publishing import BUSY_QUEUE_REPUBLISH_FACTOR
from scribes.models import User
from tests.helpers.counting import Counting
from tests.helpers.factories import make_job
from tests.helpers.jobs import (
    batch_ids,
    claim,
    expire_leases,
    in_flight,
    item_counts,
    run_batch,
    run_job,
    start_counting,
)
from tests.helpers.processes import run_concurrently
from tests.helpers.servers import delete_queues

pytestmark = pytest.mark.usefixtures("empty_queues")

RunOnCommit = Callable[[], AbstractContextManager[list[Callable[[], Any]]]]


@pytest.fixture
def reconcile_and_publish(run_on_commit: RunOnCommit) -> Callable[[], None]:
    """One round of the reconciler, whose messages are sent as if it had been committed."""

    def run() -> None:
        with run_on_commit():
            reconcile()

    return run


def ago(seconds: float = 3600) -> datetime:
    return timezone.now() - timedelta(seconds=seconds)


# --- Lost messages --------------------------------------------------------------------------


def test_plan_is_published_again_when_its_message_was_lost(
    alice: User, reconcile_and_publish: Callable[[], None]
):
    enqueue(alice, "counting", {"count": 1})
    BackgroundJob.objects.update(dispatched_at=ago(settings.JOB_REPUBLISH_SECONDS + 5))
    reconcile_and_publish()
    assert queue_length("control") == 1
    reconcile_and_publish()
    assert queue_length("control") == 1
    delete_queues()
    reconcile_and_publish()
    assert queue_length("control") == 0, "the second message counts from when it was sent"


def test_plan_is_not_published_again_while_it_may_be_waiting(
    alice: User, reconcile_and_publish: Callable[[], None]
):
    enqueue(alice, "counting", {"count": 1})
    reconcile_and_publish()
    assert queue_length("control") == 0


def test_plan_counts_as_lost_much_later_in_a_busy_queue(
    alice: User,
    bob: User,
    run_on_commit: RunOnCommit,
    reconcile_and_publish: Callable[[], None],
):
    with run_on_commit():
        enqueue(bob, "counting", {"count": 1})
    enqueue(alice, "counting", {"count": 1})
    seconds = settings.JOB_REPUBLISH_SECONDS
    BackgroundJob.objects.filter(user=alice).update(dispatched_at=ago(seconds + 5))
    reconcile_and_publish()
    assert queue_length("control") == 1
    long_ago = ago(seconds * BUSY_QUEUE_REPUBLISH_FACTOR + 5)
    BackgroundJob.objects.filter(user=alice).update(dispatched_at=long_ago)
    reconcile_and_publish()
    assert queue_length("control") == 2


@pytest.mark.django_db(transaction=True)
def test_plan_is_not_published_by_two_reconcilers(alice: User):
    """The second one does not wait for the first one, either."""
    make_job(alice, minutes_ago=60)
    with transaction.atomic():
        republish_plans(0)
        run_concurrently(1, lambda _: republish_plans(0))
        assert queue_length("control") == 0
    assert queue_length("control") == 1


def test_500_lost_plans_are_published_100_at_a_time(db: None, run_on_commit: RunOnCommit):
    """Each transaction locks at most BATCH_SIZE jobs."""
    make_lost_jobs(500)
    with CaptureQueriesContext(connection) as queries, run_on_commit():
        republish_plans(60)
    updates = [q["sql"] for q in queries if q["sql"].startswith("UPDATE")]
    savepoints = [q["sql"] for q in queries if q["sql"].startswith("SAVEPOINT")]
    assert [update.count("::uuid") for update in updates] == [BATCH_SIZE] * 5
    assert len(savepoints) == 6
    assert queue_length("control") == 500


def make_lost_jobs(number: int) -> None:
    """Queued jobs of as many users, whose messages got lost."""
    names = (f"user{n}@example.com" for n in range(number))
    users = User.objects.bulk_create(User(email=name) for name in names)
    BackgroundJob.objects.bulk_create(
        BackgroundJob(user=user, job_type="counting", created_at=ago(), dispatched_at=ago())
        for user in users
    )


def test_reconciler_repeats_some_messages_in_each_round(alice: User, monkeypatch):
    monkeypatch.setattr(reconciler, "BATCH_SIZE", 10)
    monkeypatch.setattr(reconciler, "MAX_JOBS_PER_ROUND", 20)
    make_lost_jobs(25)
    republish_plans(60)
    assert BackgroundJob.objects.presumed_lost(60).count() == 5
    JobBatch.append(start_counting(alice, 1), [[number] for number in range(24)])
    JobBatch.objects.update(dispatched_at=ago())
    withdraw_lost_batches("counting")
    assert JobBatch.objects.dispatched().count() == 5


def test_batches_are_published_again_when_messages_were_lost(
    alice: User, reconcile_and_publish: Callable[[], None]
):
    start_counting(alice, 700)
    assert queue_length("control") == 0
    JobBatch.objects.filter(number__lte=2).update(dispatched_at=ago())
    reconcile_and_publish()
    assert queue_length("control") == 2


def test_batches_are_not_published_again_while_they_may_wait(
    alice: User, reconcile_and_publish: Callable[[], None]
):
    start_counting(alice, 700)
    JobBatch.objects.update(dispatched_at=ago(settings.JOB_REPUBLISH_SECONDS - 5))
    reconcile_and_publish()
    assert queue_length("control") == 0


def test_batches_count_as_lost_by_their_own_queue(
    alice: User, reconcile_and_publish: Callable[[], None]
):
    """The counting jobs' queue is busy, and that of the embedding jobs is empty."""
    counting = start_counting(alice, 1)
    embedding = make_job(alice, status="running", total_items=1)
    JobBatch.append(embedding, [[1]])
    JobBatch.objects.update(dispatched_at=ago(settings.JOB_REPUBLISH_SECONDS + 5))
    broker.send("jobs.tasks.reconcile", (), "control", "Reconcile: now")
    before = counting.batches.values().get()
    reconcile_and_publish()
    assert (queue_length("control"), queue_length("embeddings")) == (1, 1)
    assert counting.batches.values().get() == before


@pytest.mark.parametrize("job_type", ["counting", "retired_type"])
def test_batches_are_published_to_the_queue_of_their_type(
    alice: User,
    bob: User,
    monkeypatch,
    reconcile_and_publish: Callable[[], None],
    job_type: str,
):
    """A job type that no longer exists is left alone, and does not stop the others."""
    monkeypatch.setattr(Counting, "queue", "embeddings")
    start_counting(alice, 200)
    gone = make_job(bob, job_type=job_type, status="running", total_items=1)
    JobBatch.append(gone, [[1]])
    JobBatch.objects.update(dispatched_at=None)
    reconcile_and_publish()
    assert queue_length("control") == 0
    assert queue_length("embeddings") == (3 if job_type == "counting" else 2)
    assert (gone.batches.get().dispatched_at is None) == (job_type == "retired_type")


@pytest.mark.parametrize("status", ["queued", "completed", "failed", "cancelled"])
def test_batches_of_jobs_that_do_not_run_are_not_published(
    alice: User, reconcile_and_publish: Callable[[], None], status: str
):
    job = start_counting(alice, 200)
    BackgroundJob.objects.update(status=status, dispatched_at=timezone.now())
    JobBatch.objects.update(dispatched_at=ago())
    job.batches.filter(number=2).update(dispatched_at=None)
    before = list(JobBatch.objects.values())
    reconcile_and_publish()
    assert queue_length("control") == 0
    assert list(JobBatch.objects.values()) == before


def test_waiting_batches_are_dispatched_up_to_the_parallelism(
    alice: User, bob: User, run_on_commit: RunOnCommit
):
    """Batches in progress, and those with a message in the queue, count."""
    job, others = start_counting(alice, 700), start_counting(bob, 700)
    JobBatch.objects.update(dispatched_at=None)
    claim(job, number=1)
    JobBatch.dispatch(job, 1)
    with run_on_commit():
        dispatch_waiting_batches()
    assert in_flight(job) == in_flight(others) == settings.JOB_PARALLELISM
    assert queue_length("control") == 2 * settings.JOB_PARALLELISM - 2
    with run_on_commit():
        dispatch_waiting_batches()
    assert queue_length("control") == 2 * settings.JOB_PARALLELISM - 2


def test_jobs_above_the_parallelism_wait(alice: User, settings):
    """JOB_PARALLELISM was higher when their batches were dispatched."""
    job = start_counting(alice, 700)
    settings.JOB_PARALLELISM = 1
    dispatch_waiting_batches()
    assert in_flight(job) == 4


def test_jobs_without_waiting_batches_take_no_queries(alice: User, django_assert_num_queries):
    start_counting(alice, 200)
    with django_assert_num_queries(1):
        dispatch_waiting_batches()


def test_two_rounds_publish_no_more_than_one(
    alice: User, reconcile_and_publish: Callable[[], None]
):
    job = start_counting(alice, 700)
    JobBatch.objects.update(dispatched_at=None)
    reconcile_and_publish()
    reconcile_and_publish()
    assert queue_length("control") == settings.JOB_PARALLELISM
    for batch_id in batch_ids(job):
        run_batch(batch_id)
    reconcile()
    job.refresh_from_db()
    assert (job.status, item_counts(job)) == ("completed", (700, 0, 0))


# --- Leases ---------------------------------------------------------------------------------


def test_expired_lease_frees_the_batch(alice: User, reconcile_and_publish: Callable[[], None]):
    job = start_counting(alice, 10)
    claim(job, "a process that dies")
    reconcile_and_publish()
    assert (job.batches.get().status, queue_length("control")) == ("leased", 0)
    expire_leases(job)
    reconcile_and_publish()
    assert (job.batches.get().status, queue_length("control")) == ("pending", 1)
    run_batch(*batch_ids(job))
    job.refresh_from_db()
    assert (job.status, item_counts(job)) == ("completed", (10, 0, 0))


def test_renewed_lease_is_kept(alice: User):
    job = start_counting(alice, 10)
    batch = claim(job, "a slow process")
    expire_leases(job)
    assert batch.renew()
    reconcile()
    assert job.batches.get().status == "leased"
    assert batch.finish()


# --- Time limits ----------------------------------------------------------------------------


def test_job_with_too_much_work_fails_and_keeps_its_results(
    half_done: BackgroundJob, alice: User, settings
):
    settings.JOB_TIMEOUT_SECONDS = 0
    reconcile()
    half_done.refresh_from_db()
    assert half_done.status == "failed"
    assert "JOB_TIMEOUT_SECONDS" in half_done.error_message
    assert half_done.completed_at is not None
    assert half_done.processed_items == 100
    assert enqueue(alice, "counting", {"count": 1})[1]


def test_waiting_does_not_count_as_work(half_done: BackgroundJob):
    """A job may wait behind the jobs of others for longer than it may take."""
    waited = timedelta(seconds=settings.JOB_TIMEOUT_SECONDS * 2)
    long_ago = timezone.now() - waited
    BackgroundJob.objects.update(created_at=long_ago, started_at=long_ago, worked_until=long_ago)
    reconcile()
    job = run_job(half_done)
    assert (job.status, job.processed_items) == ("completed", 200)
    assert job.work_time < waited


def test_renewed_batch_counts_as_work_before_it_ends(alice: User):
    job = start_counting(alice, 10)
    batch = claim(job)
    began = timezone.now() - timedelta(seconds=settings.JOB_TIMEOUT_SECONDS + 1)
    batch.claimed_at = began
    assert batch.renew()
    reconcile()
    job.refresh_from_db()
    assert job.status == "failed"
    assert not batch.renew()


def test_batch_that_raises_counts_as_work(alice: User):
    job = start_counting(alice, 10)
    batch = claim(job)
    batch.claimed_at = timezone.now() - timedelta(seconds=50)
    batch.release("no luck")
    job.refresh_from_db()
    assert job.work_time >= timedelta(seconds=50)


@pytest.mark.parametrize("ending", ["release", "put_back"])
def test_process_that_lost_its_lease_counts_no_work(alice: User, ending: str):
    """It was suspended since it claimed the batch, while the job waited for its turn."""
    job = start_counting(alice, 10)
    batch = claim(job)
    batch.claimed_at = ago(settings.JOB_TIMEOUT_SECONDS + 1)
    expire_leases(job)
    JobBatch.release_expired()
    assert not (batch.release("no luck") if ending == "release" else batch.put_back())
    job.refresh_from_db()
    assert job.work_time == timedelta()


@pytest.mark.parametrize("is_planned", [True, False])
def test_job_that_no_worker_starts_fails_after_a_day(alice: User, is_planned: bool):
    job = start_counting(alice, 1) if is_planned else enqueue(alice, "counting", {"count": 1})[0]
    BackgroundJob.objects.update(created_at=ago(settings.JOB_QUEUE_TIMEOUT_SECONDS + 1))
    reconcile()
    job.refresh_from_db()
    assert job.status == "failed"
    assert "JOB_QUEUE_TIMEOUT_SECONDS" in job.error_message
    assert enqueue(alice, "counting", {"count": 1})[1]


def test_jobs_within_their_time_do_not_fail(alice: User, bob: User, half_done: BackgroundJob):
    enqueue(bob, "counting", {"count": 1})
    before = list(BackgroundJob.objects.values())
    fail_overdue_jobs()
    assert list(BackgroundJob.objects.values()) == before


# --- Pruning --------------------------------------------------------------------------------


def ended(
    user: User, minutes_ago: int, job_type: str = "counting", status: str = "completed"
) -> BackgroundJob:
    return make_job(
        user,
        minutes_ago=minutes_ago,
        status=status,
        completed_at=ago(minutes_ago * 60),
        job_type=job_type,
    )


def test_prune_keeps_the_newest_job_of_each_user_and_type(alice: User, bob: User):
    kept = [ended(alice, 70), ended(bob, 300), ended(alice, 200, "other"), ended(bob, 5, "other")]
    for minutes in range(100, 350):
        ended(alice, minutes)
    kept.append(make_job(alice, minutes_ago=500, status="running", job_type="third"))
    kept.append(make_job(bob, minutes_ago=500, status="queued", job_type="third"))
    reconcile()
    assert set(BackgroundJob.objects.all()) == set(kept)


def test_prune_keeps_jobs_that_ended_lately_or_are_active(alice: User):
    minutes = settings.JOB_KEEP_RESULT_SECONDS // 60
    kept = [ended(alice, 0), ended(alice, minutes - 1, status="failed")]
    kept.append(make_job(alice, minutes_ago=500, status="running", job_type="counting"))
    ended(alice, minutes + 1)
    ended(alice, minutes + 1, status="failed")
    ended(alice, minutes + 1, status="cancelled")
    BackgroundJob.objects.filter(status="running").update(completed_at=ago(500 * 60))
    prune()
    assert set(BackgroundJob.objects.all()) == set(kept)


def test_prune_keeps_the_outcomes_of_all_jobs_it_deletes(alice: User):
    number = 2 * BATCH_SIZE + 1
    for _ in range(number):
        ended(alice, 200)
    ended(alice, 200, status="failed")
    ended(alice, 0)
    prune()
    assert BackgroundJob.objects.count() == 1
    outcomes = JobOutcomes.objects.values_list("succeeded", "failed")
    assert tuple(map(sum, zip(*outcomes, strict=True))) == (number, 1)


def test_prune_stops_after_some_jobs_in_each_round(alice: User, monkeypatch):
    monkeypatch.setattr(reconciler, "BATCH_SIZE", 10)
    monkeypatch.setattr(reconciler, "MAX_JOBS_PER_ROUND", 20)
    for _ in range(25):
        ended(alice, 200)
    ended(alice, 0)
    prune()
    assert BackgroundJob.objects.count() == 6
    prune()
    assert BackgroundJob.objects.count() == 1


def test_prune_deletes_old_outcomes(db: None):
    def outcome(age: timedelta) -> JobOutcomes:
        return JobOutcomes.objects.create(hour=timezone.now() - age, succeeded=1, failed=0)

    outcome(KEEP_OUTCOMES + timedelta(minutes=1))
    kept = outcome(KEEP_OUTCOMES - timedelta(minutes=1))
    prune()
    assert list(JobOutcomes.objects.all()) == [kept]


@pytest.mark.django_db(transaction=True)
def test_prune_counts_a_job_once_in_two_processes(alice: User):
    """The second process does not wait for the first one, either."""
    ended(alice, 200)
    ended(alice, 0)
    with transaction.atomic():
        prune()
        run_concurrently(1, lambda _: prune())
    outcome = JobOutcomes.objects.get()
    assert (outcome.succeeded, outcome.failed) == (1, 0)


# --- Without a broker -----------------------------------------------------------------------


@pytest.mark.usefixtures("refused_redis")
def test_reconcile_does_the_rest_without_redis(alice: User):
    job = start_counting(alice, 10)
    claim(job)
    expire_leases(job)
    long = timedelta(seconds=settings.JOB_TIMEOUT_SECONDS + 1)
    make_job(alice, job_type="late", status="running", work_time=long)
    ended(alice, 200, "old")
    ended(alice, 0, "old")
    reconcile()
    assert job.batches.get().status == "pending"
    assert BackgroundJob.objects.get(job_type="late").status == "failed"
    assert BackgroundJob.objects.filter(job_type="old").count() == 1
    assert run_job(job).status == "completed"
