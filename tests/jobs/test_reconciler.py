"""What gets lost is repeated, what is too old is ended or deleted, and twice is harmless."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.conf import settings
from django.utils import timezone

from jobs.broker import queue_length
from jobs.models import BackgroundJob, JobBatch
from jobs.reconciler import reconcile
from jobs.runner import enqueue
from jobs.tasks import run_batch
from scribes.models import User
from tests.conftest import forget_queues
from tests.jobs.conftest import batch_ids, counts, make_job, start


@pytest.fixture(autouse=True)
def empty_queues(servers: None) -> None:
    forget_queues()


@pytest.fixture
def commits(django_capture_on_commit_callbacks):
    """A block after which its messages are sent, as if its transaction had been committed."""
    return lambda: django_capture_on_commit_callbacks(execute=True)


def long_ago(seconds: float = 3600):
    return timezone.now() - timedelta(seconds=seconds)


def test_a_queued_job_whose_message_was_lost_is_published_again(alice: User, commits):
    enqueue(alice, "counting", {"count": 1})
    BackgroundJob.objects.update(dispatched_at=long_ago(settings.JOB_REPUBLISH_SECONDS + 5))
    with commits():
        reconcile()
    assert queue_length("default") == 1
    with commits():
        reconcile()
    assert queue_length("default") == 1


def test_a_message_that_may_still_wait_is_not_repeated(alice: User, commits):
    enqueue(alice, "counting", {"count": 1})
    with commits():
        reconcile()
    assert queue_length("default") == 0


def test_while_other_messages_wait_one_counts_as_lost_much_later(alice: User, bob: User, commits):
    with commits():
        enqueue(bob, "counting", {"count": 1})
    enqueue(alice, "counting", {"count": 1})
    seconds = settings.JOB_REPUBLISH_SECONDS
    BackgroundJob.objects.filter(user=alice).update(dispatched_at=long_ago(seconds + 5))
    with commits():
        reconcile()
    assert queue_length("default") == 1
    BackgroundJob.objects.filter(user=alice).update(dispatched_at=long_ago(10 * seconds + 5))
    with commits():
        reconcile()
    assert queue_length("default") == 2


def test_batches_whose_messages_were_lost_are_published_again(alice: User, commits):
    start(alice, 700)
    assert queue_length("default") == 0
    JobBatch.objects.filter(number__lte=2).update(dispatched_at=long_ago())
    with commits():
        reconcile()
    assert queue_length("default") == 2


def test_an_expired_lease_frees_the_batch_for_others(alice: User, commits):
    job = start(alice, 10)
    assert JobBatch.claim(batch_ids(job)[0], "a process that dies")
    with commits():
        reconcile()
    assert (job.batches.get().status, queue_length("default")) == ("leased", 0)
    JobBatch.objects.update(lease_expires_at=long_ago())
    with commits():
        reconcile()
    assert (job.batches.get().status, queue_length("default")) == ("pending", 1)
    run_batch(*batch_ids(job))
    job.refresh_from_db()
    assert (job.status, counts(job)) == ("completed", (10, 0, 0))


def test_a_renewed_lease_stays(alice: User):
    job = start(alice, 10)
    batch = JobBatch.claim(batch_ids(job)[0], "a slow process")
    JobBatch.objects.update(lease_expires_at=long_ago())
    assert batch
    assert batch.renew()
    reconcile()
    assert job.batches.get().status == "leased"
    assert batch.finish()


def test_a_job_past_its_deadline_fails_and_keeps_what_is_done(alice: User):
    job = start(alice, 200)
    run_batch(batch_ids(job)[0])
    BackgroundJob.objects.update(deadline_at=long_ago(1))
    reconcile()
    job.refresh_from_db()
    assert job.status == "failed"
    assert "JOB_TIMEOUT" in job.error_message
    assert job.completed_at is not None
    assert job.processed_items == 100
    assert enqueue(alice, "counting", {"count": 1})[1]


def test_the_deadline_counts_from_the_first_batch_and_not_from_the_request(alice: User, settings):
    """Behind other people's jobs, one may wait for longer than it may take."""
    settings.JOB_TIMEOUT = -1
    job = start(alice, 300)
    reconcile()
    first, second, _ = batch_ids(job)
    settings.JOB_TIMEOUT = 60
    run_batch(first)
    job.refresh_from_db()
    deadline = job.deadline_at
    assert deadline
    assert 0 < (deadline - timezone.now()).total_seconds() <= 60
    run_batch(second)
    job.refresh_from_db()
    assert (job.status, job.processed_items, job.deadline_at) == ("running", 200, deadline)


@pytest.mark.parametrize("planned", [True, False])
def test_a_job_that_no_worker_begins_fails_after_a_day(alice: User, planned: bool):
    job = start(alice, 1) if planned else enqueue(alice, "counting", {"count": 1})[0]
    BackgroundJob.objects.update(created_at=long_ago(settings.JOB_QUEUE_TIMEOUT + 1))
    reconcile()
    job.refresh_from_db()
    assert job.status == "failed"
    assert "JOB_QUEUE_TIMEOUT" in job.error_message
    assert enqueue(alice, "counting", {"count": 1})[1]


def test_old_jobs_are_pruned_but_for_the_newest_of_each_user_and_type(alice: User, bob: User):
    def ended(user: User, minutes_ago: int, job_type: str = "counting") -> BackgroundJob:
        at = long_ago(minutes_ago * 60)
        return make_job(
            user,
            minutes_ago=minutes_ago,
            status="completed",
            completed_at=at,
            job_type=job_type,
        )

    kept = [ended(alice, 70), ended(bob, 300), ended(alice, 200, "other"), ended(bob, 5, "other")]
    for minutes in range(100, 350):
        ended(alice, minutes)
    kept.append(make_job(alice, minutes_ago=500, status="running", job_type="third"))
    kept.append(make_job(bob, minutes_ago=500, status="queued", job_type="third"))
    reconcile()
    assert set(BackgroundJob.objects.all()) == set(kept)


def test_two_reconcilers_are_as_good_as_one(alice: User, commits):
    job = start(alice, 700)
    JobBatch.objects.update(dispatched_at=None)
    with commits():
        reconcile()
        reconcile()
    assert queue_length("default") == settings.JOB_PARALLELISM
    for batch_id in batch_ids(job):
        run_batch(batch_id)
    reconcile()
    job.refresh_from_db()
    assert (job.status, counts(job)) == ("completed", (700, 0, 0))
