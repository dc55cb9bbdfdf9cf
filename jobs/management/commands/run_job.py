from __future__ import annotations

from argparse import ArgumentParser
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError

from jobs import runner
from jobs.job_types import JOB_TYPES
from jobs.models import BackgroundJob, JobBatch
from jobs.presentation import describe

# Without a claimant, nobody else can take over the lease before it expires.
NO_CLAIMANT = ""


class Command(BaseCommand):
    help = (
        "Run the batches of one job in this process, in the foreground, so that a debugger can stop "
        "in them. Set a long JOB_LEASE_SECONDS, or what you step through loses its lease. Workers may "
        "run at the same time: each batch still has one process."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument("job_id", nargs="?", type=UUID, help="the job's id")
        which.add_argument(
            "--next", action="store_true", help="the active job that was created first"
        )

    def handle(self, *args: Any, job_id: UUID | None, **options: Any) -> None:
        job = self._find(job_id)
        self.stdout.write(f"Running {job}")
        runner.plan(job.pk)
        while batch_id := _next_batch(job):
            runner.run_batch(batch_id, NO_CLAIMANT)
        job.refresh_from_db()
        self.stdout.write(describe(job))
        if not job.is_terminal:
            self.stdout.write("Other processes work on the remaining batches.")

    def _find(self, job_id: UUID | None) -> BackgroundJob:
        jobs = BackgroundJob.objects.order_by("created_at")
        job = jobs.filter(pk=job_id).first() if job_id else jobs.active().first()
        if job is None:
            raise CommandError(f"There is no job {job_id}." if job_id else "No job is active.")
        if job.is_terminal:
            raise CommandError(f"The job has already ended. {describe(job)}")
        if job.job_type not in JOB_TYPES:
            raise CommandError(f"There is no job type {job.job_type}.")
        return job


def _next_batch(job: BackgroundJob) -> int | None:
    """A pending batch, or one whose process has died; None if the job has ended, or if other
    processes have all the others."""
    JobBatch.release_expired()
    pending = JobBatch.objects.of_running_jobs().pending().filter(job=job)
    return pending.order_by("number").values_list("pk", flat=True).first()
