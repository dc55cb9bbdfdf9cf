"""The states of a job: each transition starts from certain states, and a job that ended stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
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
    "record_progress": (
        lambda job: job.record_progress(timezone.now(), processed=1),
        ("running",),
        "running",
    ),
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
        job.record_progress(timezone.now(), processed=1, failed=2, skipped=3)
    job.refresh_from_db()
    assert (job.processed_items, job.failed_items, job.skipped_items) == (2, 4, 6)


def test_counters_cannot_exceed_the_total(alice: User):
    job = make_job(alice, status="running", total_items=5, processed_items=4)
    with pytest.raises(IntegrityError):
        job.record_progress(timezone.now(), failed=1, skipped=1)


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


# --- Work time ------------------------------------------------------------------------------


def work_seconds(job: BackgroundJob) -> float:
    job.refresh_from_db()
    return job.work_time.total_seconds()


def ago(seconds: float) -> datetime:
    return timezone.now() - timedelta(seconds=seconds)


@pytest.mark.parametrize("status", BackgroundJob.Status.values)
def test_record_work_changes_only_running_jobs(alice: User, status: str):
    job = make_job(alice, status=status)
    job.record_work(ago(100))
    assert (work_seconds(job) >= 100) == (status == "running")


def test_work_of_two_processes_at_once_counts_once(alice: User):
    job = make_job(alice, status="running")
    job.record_work(ago(100))
    job.record_work(ago(150))
    assert 100 <= work_seconds(job) < 150


def test_work_does_not_include_the_time_between(alice: User):
    job = make_job(alice, status="running", worked_until=ago(1000), work_time=timedelta(seconds=5))
    job.record_work(ago(10))
    assert 15 <= work_seconds(job) < 100


def test_work_is_never_negative(alice: User):
    """Another transaction may have reported later, although it committed earlier."""
    later = timezone.now() + timedelta(seconds=100)
    job = make_job(alice, status="running", worked_until=later)
    job.record_work(ago(10))
    assert work_seconds(job) == 0
    assert job.worked_until == later


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
