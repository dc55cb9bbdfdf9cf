"""Which jobs count as active, overdue, lost, failed, or in need of attention."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.conf import settings
from django.utils import timezone

from jobs.models import BackgroundJob, needs_attention
from scribes.models import User
from tests.helpers.factories import make_job
from tests.helpers.jobs import claim, start_counting

STATUSES = BackgroundJob.Status.values


def jobs_in_each_status(user: User, **fields: Any) -> None:
    """Each of its own type, since a user has one active job of a type."""
    for status in STATUSES:
        make_job(user, status=status, job_type=f"{status}_type", **fields)


def statuses(jobs: Any) -> set[str]:
    return set(jobs.values_list("status", flat=True))


def ago(seconds: float) -> datetime:
    return timezone.now() - timedelta(seconds=seconds)


def test_querysets_select_jobs_by_status(alice: User):
    jobs_in_each_status(alice)
    jobs = BackgroundJob.objects
    assert statuses(jobs.queued()) == {"queued"}
    assert statuses(jobs.running()) == {"running"}
    assert statuses(jobs.active()) == {"queued", "running"}
    assert statuses(jobs.terminal()) == {"completed", "failed", "cancelled"}


def test_overdue_jobs_are_active_and_took_too_much_work(alice: User, bob: User):
    limit = timedelta(seconds=settings.JOB_TIMEOUT_SECONDS)
    jobs_in_each_status(alice, work_time=limit + timedelta(seconds=1))
    make_job(bob, status="running", minutes_ago=10**5, work_time=limit)
    overdue = BackgroundJob.objects.overdue()
    assert statuses(overdue) == {"queued", "running"}
    assert {job.user for job in overdue} == {alice}


LONGEST_WAIT_MINUTES = settings.JOB_QUEUE_TIMEOUT_SECONDS // 60


def test_never_started_jobs_are_active_old_and_untouched(alice: User, bob: User):
    jobs_in_each_status(alice, minutes_ago=LONGEST_WAIT_MINUTES + 1)
    make_job(bob, job_type="young", minutes_ago=LONGEST_WAIT_MINUTES - 1)
    never_started = BackgroundJob.objects.never_started()
    assert statuses(never_started) == {"queued", "running"}
    assert {job.user for job in never_started} == {alice}


def test_never_started_jobs_have_no_batch_in_progress(alice: User):
    job = start_counting(alice, 10)
    BackgroundJob.objects.update(created_at=ago(settings.JOB_QUEUE_TIMEOUT_SECONDS + 1))
    assert BackgroundJob.objects.never_started().get() == job
    claim(job)
    assert not BackgroundJob.objects.never_started()


def test_never_started_is_nobody_while_the_type_is_served(alice: User, bob: User):
    """Then the job only waits for its turn."""
    make_job(alice, minutes_ago=LONGEST_WAIT_MINUTES + 1)
    other = make_job(bob, status="running", worked_until=ago(60))
    assert not BackgroundJob.objects.never_started()
    BackgroundJob.objects.filter(pk=other.pk).update(job_type="another")
    assert BackgroundJob.objects.never_started().count() == 1


def test_jobs_presumed_lost_are_queued_and_dispatched_long_ago(alice: User, bob: User):
    jobs_in_each_status(alice, dispatched_at=ago(61))
    make_job(bob, status="queued", minutes_ago=60, dispatched_at=ago(59))
    lost = BackgroundJob.objects.presumed_lost(60)
    assert statuses(lost) == {"queued"}
    assert {job.user for job in lost} == {alice}


# --- Outcomes -------------------------------------------------------------------------------


def test_outcomes_by_hour_count_failed_items_as_failure(alice: User):
    def ended(hour: int, minute: int, **fields: Any) -> None:
        make_job(alice, completed_at=datetime(2026, 3, 1, hour, minute, tzinfo=UTC), **fields)

    ended(9, 0, status="completed")
    ended(9, 59, status="completed", total_items=2, processed_items=1, failed_items=1)
    ended(9, 59, status="failed")
    ended(10, 0, status="cancelled")
    ended(10, 1, status="cancelled", total_items=1, failed_items=1)
    make_job(alice, status="running")
    outcomes = BackgroundJob.objects.outcomes_by_hour()
    rows = {row["hour"].hour: (row["succeeded"], row["failed"]) for row in outcomes}
    assert rows == {9: (1, 2), 10: (1, 1)}


# --- Needs attention ------------------------------------------------------------------------


FAILED_ITEM = {"total_items": 1, "failed_items": 1}
MINUTES = settings.JOB_REPUBLISH_SECONDS // 60 + 1


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"status": "failed"}, True),
        ({"status": "completed", **FAILED_ITEM}, True),
        ({"status": "cancelled", **FAILED_ITEM}, True),
        ({"status": "running", **FAILED_ITEM}, False),
        ({"status": "completed", "total_items": 1, "processed_items": 1}, False),
        ({"status": "cancelled"}, False),
        ({"status": "queued"}, False),
        ({"status": "queued", "minutes_ago": MINUTES}, True),
        ({"status": "running", "minutes_ago": MINUTES}, False),
        ({"status": "completed", "minutes_ago": MINUTES}, False),
    ],
)
def test_job_needs_attention(alice: User, fields: dict[str, Any], expected: bool):
    job = make_job(alice, **fields)
    assert (job in BackgroundJob.objects.filter(needs_attention())) == expected


def test_retried_job_needs_no_attention(alice: User):
    failed = make_job(alice, status="failed")
    other = make_job(alice, status="failed")
    make_job(alice, status="completed", retry_of=failed)
    assert list(BackgroundJob.objects.filter(needs_attention())) == [other]
