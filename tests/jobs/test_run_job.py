"""`manage.py run_job`: the batches of a job, run in the foreground."""

from __future__ import annotations

import sys
import uuid
from contextlib import ExitStack
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from jobs.models import BackgroundJob, JobBatch
from scribes.models import User
from tests.helpers.counting import counted
from tests.helpers.factories import make_job
from tests.helpers.jobs import claim, expire_leases, item_counts, start_counting
from tests.helpers.processes import Process, environment, eventually, running

# manage.py, with the tests' job type.
MANAGE = """
import sys, django
django.setup()
import tests.helpers.counting
from django.core.management import execute_from_command_line
execute_from_command_line(["manage.py", *sys.argv[1:]])
"""


def run_job(job: BackgroundJob, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """What `manage.py run_job` prints."""
    call_command("run_job", *(options or [str(job.pk)]))
    job.refresh_from_db()
    return capsys.readouterr().out


def test_run_job_runs_all_batches(alice: User, capsys: pytest.CaptureFixture[str]):
    job = start_counting(alice, 250)
    output = run_job(job, capsys)
    assert (job.status, item_counts(job)) == ("completed", (250, 0, 0))
    assert counted(job) == list(range(250))
    assert output.splitlines() == [
        f"Running Counting {str(job.pk)[:8]}",
        "The job is complete: 250 of 250 numbers done, 0 failed.",
    ]


def test_run_job_leaves_other_jobs_alone(
    alice: User, bob: User, capsys: pytest.CaptureFixture[str]
):
    others = start_counting(bob, 5)
    before = others.batches.values().get()
    run_job(start_counting(alice, 5), capsys)
    assert others.batches.values().get() == before


def test_run_job_plans_a_queued_job(alice: User, capsys: pytest.CaptureFixture[str]):
    job = make_job(alice, job_type="counting", parameters={"count": 5})
    run_job(job, capsys)
    assert (job.status, item_counts(job)) == ("completed", (5, 0, 0))


def test_run_job_reports_a_job_that_cannot_be_planned(
    alice: User, capsys: pytest.CaptureFixture[str]
):
    job = make_job(alice, job_type="counting", parameters={"count": -1})
    output = run_job(job, capsys)
    assert "The job failed: Planning failed: ValueError: there are no -1 numbers" in output


def test_run_job_records_failed_items(alice: User, capsys: pytest.CaptureFixture[str]):
    job = start_counting(alice, 20, plans={"13": "raise"})
    output = run_job(job, capsys)
    assert "The job is complete: 20 of 20 numbers done, 1 failed." in output
    assert job.failures.get().item_id == 13


def test_run_job_tries_a_batch_that_raised_again(
    alice: User, capsys: pytest.CaptureFixture[str], monkeypatch
):
    """Until its attempts are used up; then its items, one by one."""

    def full_disk(self, *args):
        raise OSError("no space left")

    monkeypatch.setattr("tests.helpers.counting.Counting.save", full_disk)
    job = start_counting(alice, 2)
    run_job(job, capsys)
    assert (job.status, item_counts(job)) == ("completed", (0, 2, 0))
    assert {failure.error_class for failure in job.failures.all()} == {"AttemptsUsedUp"}


def test_run_job_next_takes_the_oldest_active_job(
    alice: User, bob: User, capsys: pytest.CaptureFixture[str]
):
    make_job(alice, job_type="counting", status="completed", minutes_ago=30)
    oldest = make_job(bob, job_type="counting", parameters={"count": 5}, minutes_ago=20)
    newer = make_job(alice, job_type="counting", parameters={"count": 5}, minutes_ago=10)
    run_job(oldest, capsys, "--next")
    newer.refresh_from_db()
    assert (oldest.status, newer.status) == ("completed", "queued")


# --- Errors ---------------------------------------------------------------------------------


def test_run_job_refuses_an_unknown_id(db: None):
    job_id = uuid.uuid4()
    with pytest.raises(CommandError, match=f"There is no job {job_id}."):
        call_command("run_job", str(job_id))


@pytest.mark.parametrize("arguments", [[], ["12"]])
def test_run_job_needs_an_id(db: None, arguments: list[str]):
    with pytest.raises(CommandError, match=r"job_id"):
        call_command("run_job", *arguments)


def test_run_job_next_needs_an_active_job(alice: User):
    make_job(alice, status="completed")
    with pytest.raises(CommandError, match=r"No job is active."):
        call_command("run_job", "--next")


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_run_job_refuses_a_job_that_has_ended(alice: User, status: str):
    job = make_job(alice, status=status)
    with pytest.raises(CommandError, match=r"The job has already ended. The job (was|is|failed)"):
        call_command("run_job", str(job.pk))


def test_run_job_refuses_a_job_type_that_no_longer_exists(alice: User):
    job = make_job(alice, job_type="retired_type", status="running", total_items=1)
    JobBatch.append(job, [[1]])
    # Near the column's limit, so that endless attempts would end soon.
    job.batches.update(attempts=32_766)
    with pytest.raises(CommandError, match=r"There is no job type retired_type."):
        call_command("run_job", str(job.pk))
    assert job.batches.get().attempts == 32_766


# --- Beside other processes -----------------------------------------------------------------


def test_run_job_leaves_the_batch_of_a_live_worker(alice: User, capsys: pytest.CaptureFixture[str]):
    job = start_counting(alice, 200)
    batch = claim(job, "a worker")
    output = run_job(job, capsys)
    assert (job.status, item_counts(job)) == ("running", (100, 0, 0))
    assert counted(job) == list(range(100, 200))
    assert output.splitlines()[1:] == [
        "The job is running: 100 of 200 numbers done, 0 failed.",
        "Other processes work on the remaining batches.",
    ]
    assert batch.finish()


def test_run_job_takes_the_batch_of_a_dead_worker(alice: User, capsys: pytest.CaptureFixture[str]):
    job = start_counting(alice, 200)
    claim(job, "a worker")
    expire_leases(job)
    run_job(job, capsys)
    assert (job.status, item_counts(job)) == ("completed", (200, 0, 0))
    assert counted(job) == list(range(200))


def test_run_job_cannot_lose_its_batch_to_another_run_job(
    alice: User, capsys: pytest.CaptureFixture[str], monkeypatch
):
    """It has no message that could come again."""
    job = start_counting(alice, 1)
    taken_over: list[JobBatch | None] = []

    def compute(self, job, item_ids, renew):
        batch = JobBatch.objects.held().get()
        taken_over.append(JobBatch.claim(batch.pk, batch.claimed_by))
        return item_ids

    monkeypatch.setattr("tests.helpers.counting.Counting.compute", compute)
    run_job(job, capsys)
    assert taken_over == [None]
    assert job.status == "completed"


def run_job_process(stack: ExitStack, folder: Path, name: str, job: BackgroundJob) -> Process:
    command = [sys.executable, "-c", MANAGE, "run_job", str(job.pk)]
    return stack.enter_context(running(command, folder / f"{name}.log", environment()))


@pytest.mark.django_db(transaction=True)
def test_two_run_jobs_give_each_batch_to_one(alice: User, tmp_path: Path, settings):
    settings.JOB_BATCH_SIZE = 5
    job = start_counting(alice, 200, seconds=0.04)
    with ExitStack() as stack:
        processes = [run_job_process(stack, tmp_path, name, job) for name in ("one", "two")]
        for process in processes:
            assert process.await_end() == 0, process.output
    job.refresh_from_db()
    assert (job.status, item_counts(job)) == ("completed", (200, 0, 0))
    assert counted(job) == list(range(200))
    assert set(job.batches.values_list("attempts", flat=True)) == {1}
    batches = [process.output.count("processed, 0 failed") for process in processes]
    assert sum(batches) == 40
    assert min(batches) >= 1


@pytest.mark.django_db(transaction=True)
def test_run_job_stops_when_the_job_is_cancelled(alice: User, tmp_path: Path, settings):
    settings.JOB_BATCH_SIZE = 5
    job = start_counting(alice, 100, seconds=0.05)
    with ExitStack() as stack:
        process = run_job_process(stack, tmp_path, "one", job)
        eventually(lambda: job.batches.filter(status="done").exists())
        job.cancel()
        assert process.await_end() == 0, process.output
    assert "The job was cancelled" in process.output
    assert "Other processes" not in process.output
