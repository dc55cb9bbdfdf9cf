"""Jobs and batches stay consistent in any order of events: a state machine driven at random."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import override_settings
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from jobs.job_types import LeaseLost
from jobs.models import BackgroundJob, JobBatch
from jobs.reconciler import reconcile
from jobs.runner import _write, enqueue, retry_failed
from jobs.tasks import plan_job
from scribes.models import User
from tests.helpers.counting import Counting, counted, create_table
from tests.helpers.jobs import LONG_AGO, run_batch

PLANS = {"3": "raise", "8": "skip"}


class Jobs(RuleBasedStateMachine):
    """Two users with jobs, and processes that claim, die, finish, or come back too late."""

    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        BackgroundJob.objects.all().delete()
        create_table()
        names = ("carol@example.com", "dave@example.com")
        self.users = [User.objects.get_or_create(email=name)[0] for name in names]
        self.seen: dict[str, dict[str, Any]] = {}

    @initialize(target=claims)
    def start_jobs(self):
        """Two jobs of four batches each, half of them in progress."""
        for user in self.users:
            job, _ = enqueue(user, "counting", {"count": 12, "plans": PLANS})
            plan_job(str(job.pk))
        half = JobBatch.objects.filter(number__lte=2)
        return multiple(*(JobBatch.claim(batch.pk, f"message {batch.pk}") for batch in half))

    @rule(user=st.integers(0, 1), count=st.integers(0, 12), planned=st.booleans())
    def request(self, user: int, count: int, planned: bool) -> None:
        job, is_new = enqueue(self.users[user], "counting", {"count": count, "plans": PLANS})
        assert is_new or job.status in BackgroundJob.ACTIVE
        if planned:
            plan_job(str(job.pk))

    @rule(target=claims, number=st.integers(0, 20))
    def claim(self, number: int):
        """A process claims a batch, and has not finished yet."""
        batch = self.any_batch(number)
        return (batch and JobBatch.claim(batch.pk, f"message {number}")) or multiple()

    def any_batch(self, number: int) -> JobBatch | None:
        """An unfinished batch, or a finished one if there are no others."""
        batches = list(JobBatch.objects.filter(status__in=JobBatch.ACTIVE).order_by("pk"))
        batches = batches or list(JobBatch.objects.order_by("pk"))
        return batches[number % len(batches)] if batches else None

    @rule(batch=consumes(claims))
    def finish(self, batch: JobBatch) -> None:
        """Perhaps long after another process took over the batch, or after the job ended."""
        row = JobBatch.objects.select_related("job").filter(pk=batch.pk).first()
        is_ours = row is not None and row.status == "leased" and row.claim_seq == batch.claim_seq
        may_write = is_ours and row is not None and row.job.status == "running"
        numbers = [n for n in batch.item_ids if str(n) not in PLANS]
        try:
            _write(Counting(), batch, [numbers], [])
        except LeaseLost:
            assert not may_write
        else:
            assert may_write

    @rule(batch=consumes(claims))
    def raises(self, batch: JobBatch) -> None:
        batch.release("it raised")

    @rule(batch=claims)
    def renew(self, batch: JobBatch) -> None:
        batch.renew()

    @rule(number=st.integers(0, 20))
    def run(self, number: int) -> None:
        if batch := self.any_batch(number):
            run_batch(batch.pk)

    @rule(target=claims, batch=claims)
    def take_over(self, batch: JobBatch):
        """Another process gets the batch before the first one writes its results."""
        JobBatch.objects.held().filter(pk=batch.pk).update(lease_expires_at=LONG_AGO)
        reconcile()
        other = JobBatch.claim(batch.pk, "another message")
        if other:
            self.finish(batch)
        return other or multiple()

    @rule()
    def reconcile(self) -> None:
        reconcile()

    @rule(number=st.integers(0, 5))
    def cancel(self, number: int) -> None:
        jobs = list(BackgroundJob.objects.order_by("created_at"))
        if jobs:
            jobs[number % len(jobs)].cancel()

    @rule(number=st.integers(0, 5))
    def work_takes_too_long(self, number: int) -> None:
        jobs = list(BackgroundJob.objects.active().order_by("created_at"))
        if jobs:
            BackgroundJob.objects.filter(pk=jobs[number % len(jobs)].pk).update(
                work_time=timedelta(days=1)
            )

    @rule()
    def retry(self) -> None:
        for job in BackgroundJob.objects.terminal():
            retry_failed(job)

    @invariant()
    def counters_match_the_batches(self) -> None:
        for job in BackgroundJob.objects.all():
            assert 0 <= job.done_items <= job.total_items
            assert 0 <= job.progress_percent <= 100
            done = job.batches.filter(status="done")
            dead = job.batches.filter(status="dead")
            finished = sum(len(batch.item_ids) for batch in done)
            alone = sum(len(batch.item_ids) == 1 for batch in dead)
            assert job.done_items == finished + alone

    @invariant()
    def every_effect_happened_once(self) -> None:
        for job in BackgroundJob.objects.all():
            effects = counted(job)
            assert len(effects) == len(set(effects)) == job.processed_items
            assert (job.result_data or {}).get("sum", 0) == sum(effects)

    @invariant()
    def each_item_is_in_one_batch(self) -> None:
        for job in BackgroundJob.objects.exclude(status="queued"):
            living = job.batches.exclude(status="dead")
            items = [item for batch in living for item in batch.item_ids]
            dead_alone = [
                b.item_ids[0] for b in job.batches.filter(status="dead") if len(b.item_ids) == 1
            ]
            assert len(items) == len(set(items))
            assert len(items) + len(dead_alone) == job.total_items

    @invariant()
    def user_has_one_active_job(self) -> None:
        for user in self.users:
            assert BackgroundJob.objects.for_user(user).active().count() <= 1

    @invariant()
    def job_is_completed_exactly_when_all_items_are_done(self) -> None:
        for job in BackgroundJob.objects.exclude(status__in=("queued", "failed", "cancelled")):
            assert (job.status == "completed") == (job.done_items == job.total_items)

    @invariant()
    def ended_jobs_never_change(self) -> None:
        for values in BackgroundJob.objects.terminal().values():
            # One exception: retry_of is cleared when the first job is pruned.
            row: dict[str, Any] = {**values, "retry_of_id": None}
            assert row == self.seen.setdefault(str(row["job_id"]), row)


@pytest.mark.usefixtures("alice")
@override_settings(JOB_BATCH_SIZE=3, JOB_PARALLELISM=2)
def test_rows_stay_consistent_in_any_order_of_events():
    run_state_machine_as_test(
        Jobs,
        settings=settings(
            max_examples=20,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
