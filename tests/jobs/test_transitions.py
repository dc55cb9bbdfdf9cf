"""The states of a job: each transition starts from certain states, and a job that ended stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import IntegrityError
from django.utils import timezone

from jobs.models import BackgroundJob
from scribes.models import User
from tests.helpers.factories import make_job
from tests.helpers.jobs import claim, run_job, start_counting

ACTIVE = ("queued", "running")

# The states that a transition starts from, and the state afterwards.
TRANSITIONS: dict[str, tuple[Callable[[BackgroundJob], bool], tuple[str, ...], str]] = {
    "start": (lambda job: job.start(7), ("queued",), "running"),
    "record_progress": (lambda job: job.record_progress(processed=1), ("running",), "running"),
    "complete": (lambda job: job.complete({"sum": 1}), ("running",), "completed"),
    "fail": (lambda job: job.fail("out of luck"), ACTIVE, "failed"),
    "cancel": (lambda job: job.cancel(), ACTIVE, "cancelled"),
}


def row(job: BackgroundJob) -> dict[str, Any]:
    return dict(BackgroundJob.objects.filter(pk=job.pk).values().get())


@pytest.mark.parametrize("status", BackgroundJob.Status.values)
@pytest.mark.parametrize("name", TRANSITIONS)
def test_transition_starts_only_from_its_states(alice: User, bob: User, name: str, status: str):
    transition, start_states, end_state = TRANSITIONS[name]
    job = make_job(alice, status=status, total_items=9)
    other = make_job(bob, status=status, total_items=9)
    before, others_before = row(job), row(other)
    assert transition(job) == (status in start_states)
    after = row(job)
    assert (after["status"] == end_state) if status in start_states else (after == before)
    assert row(other) == others_before


def test_start_records_total_and_time(alice: User):
    job = make_job(alice)
    job.start(7)
    job.refresh_from_db()
    assert job.total_items == 7
    assert job.started_at is not None
    assert timezone.now() - job.started_at < timedelta(minutes=1)


def test_record_progress_adds_to_the_counters(alice: User):
    job = make_job(alice, status="running", total_items=20)
    for _ in range(2):
        job.record_progress(processed=1, failed=2, skipped=3)
    job.refresh_from_db()
    assert (job.processed_items, job.failed_items, job.skipped_items) == (2, 4, 6)


def test_counters_cannot_exceed_the_total(alice: User):
    job = make_job(alice, status="running", total_items=5, processed_items=4)
    with pytest.raises(IntegrityError):
        job.record_progress(failed=1, skipped=1)


def test_user_cannot_have_two_active_jobs_of_a_type(alice: User):
    make_job(alice, status="running")
    make_job(alice, status="queued", job_type="embedding_update")
    make_job(alice, status="failed")
    with pytest.raises(IntegrityError):
        make_job(alice, status="queued")


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_ended_job_has_the_time_of_its_end(alice: User, status: str):
    job = make_job(alice, status="running", minutes_ago=5)
    end = {"completed": lambda: job.complete({}), "failed": lambda: job.fail("no")}
    end.get(status, job.cancel)()
    job.refresh_from_db()
    assert job.status == status
    assert job.completed_at is not None
    assert timezone.now() - job.completed_at < timedelta(minutes=1)


def test_fail_stores_a_reason_that_postgresql_refuses(alice: User):
    job = make_job(alice)
    job.fail("a zero \0 and half a character \ud83d")
    job.refresh_from_db()
    assert job.error_message == "a zero \\0 and half a character \\ud83d"


# --- Deadline -------------------------------------------------------------------------------


@pytest.mark.parametrize("status", BackgroundJob.Status.values)
def test_start_deadline_changes_only_running_jobs(alice: User, status: str):
    job = make_job(alice, status=status)
    job.start_deadline()
    job.refresh_from_db()
    if status != "running":
        assert job.deadline_at is None
        return
    assert job.deadline_at is not None
    left = (job.deadline_at - timezone.now()).total_seconds()
    assert settings.JOB_TIMEOUT_SECONDS - 60 < left <= settings.JOB_TIMEOUT_SECONDS


def test_start_deadline_keeps_the_deadline_of_another_process(alice: User):
    job = make_job(alice, status="running")
    deadline = timezone.now()
    BackgroundJob.objects.update(deadline_at=deadline)
    assert job.deadline_at is None
    job.start_deadline()
    job.refresh_from_db()
    assert job.deadline_at == deadline


def test_start_deadline_does_nothing_when_the_deadline_is_set(
    alice: User, django_assert_num_queries
):
    """It is called for each batch."""
    job = make_job(alice, status="running", deadline_at=timezone.now())
    with django_assert_num_queries(0):
        job.start_deadline()


# --- Progress and result --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "done", "total", "percent"),
    [
        ("queued", 0, 0, 0),
        ("running", 0, 0, 0),
        ("completed", 0, 0, 100),
        ("running", 1, 300, 0),
        ("running", 1, 150, 1),
        ("running", 1999, 2000, 99),
        ("cancelled", 2000, 2000, 99),
        ("completed", 2000, 2000, 100),
    ],
)
def test_progress_is_100_only_when_complete(
    alice: User, status: str, done: int, total: int, percent: int
):
    job = make_job(alice, status=status, processed_items=done, total_items=total)
    assert job.progress_percent == percent


def test_progress_counts_failed_and_skipped_items(alice: User):
    counts = {"processed_items": 10, "failed_items": 20, "skipped_items": 30}
    job = make_job(alice, status="running", total_items=100, **counts)
    assert (job.progress_percent, job.done_items) == (60, 60)


def test_models_match_their_migrations(db: None):
    """The database computes progress_percent as the migration says, not as the model says."""
    call_command("makemigrations", "jobs", check=True, dry_run=True)


def test_add_to_result_adds_to_each_key(alice: User):
    job = make_job(alice, status="running")
    job.add_to_result({"sum": 3})
    job.add_to_result({"sum": 4, "longest": 1})
    job.add_to_result({"longest": 5})
    job.refresh_from_db()
    assert job.result_data == {"sum": 7, "longest": 6}


def test_add_to_result_changes_nothing_without_numbers(alice: User, bob: User):
    job, other = make_job(alice, status="running"), make_job(bob, status="running")
    job.add_to_result({})
    assert row(job)["result_data"] is None
    job.add_to_result({"sum": 1})
    job.add_to_result({})
    assert row(job)["result_data"] == {"sum": 1}
    assert row(other)["result_data"] is None


def test_complete_adds_the_summary_to_the_result(alice: User):
    job = make_job(alice, status="running", result_data={"sum": 7, "state": "half"})
    job.complete({"state": "whole", "counted": 2})
    assert row(job)["result_data"] == {"sum": 7, "state": "whole", "counted": 2}


# --- Unfinished batches ---------------------------------------------------------------------


def test_job_has_unfinished_batches_until_all_have_ended(alice: User, bob: User, settings):
    settings.JOB_BATCH_SIZE = 5
    start_counting(bob, 5)
    job = start_counting(alice, 10)
    second = claim(job, number=2)
    run_job(job)
    assert job.has_unfinished_batches(), "the second batch is leased"
    second.release("it raised")
    assert job.has_unfinished_batches(), "the second batch is pending"
    run_job(job)
    assert not job.has_unfinished_batches()


def test_dead_batches_are_not_unfinished(alice: User):
    job = start_counting(alice, 5)
    claim(job).mark_dead()
    assert not job.has_unfinished_batches()
