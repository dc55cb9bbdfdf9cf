"""Jobs that are created without any message, and ways to wait for them."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from django.utils import timezone

from jobs.models import BackgroundJob
from scribes.models import User
from tests.helpers.processes import eventually


def create_counting_job(email: str, count: int, **parameters) -> BackgroundJob:
    user, _ = User.objects.get_or_create(email=email)
    return create_job(user, "counting", {"count": count} | parameters)


def create_job(user: User, job_type: str, parameters: dict[str, Any]) -> BackgroundJob:
    """A job as the API creates it, but whose message is lost: the reconciler has to find it."""
    now = timezone.now()
    return BackgroundJob.objects.create(
        user=user,
        job_type=job_type,
        parameters=parameters,
        created_at=now,
        dispatched_at=now - timedelta(hours=1),
    )


def await_progress(job: BackgroundJob) -> float:
    """Seconds until the job's counters change, or it ends."""
    start, before = time.monotonic(), _done_items(job)
    eventually(lambda: _done_items(job) > before or job.is_terminal)
    return time.monotonic() - start


def _done_items(job: BackgroundJob) -> int:
    job.refresh_from_db()
    return job.done_items


def await_end(job: BackgroundJob) -> BackgroundJob:
    def has_ended() -> bool:
        job.refresh_from_db()
        return job.is_terminal

    eventually(has_ended, lambda: job.done_items)
    return job


def await_held_batches(job: BackgroundJob, number: int) -> dict[int, int]:
    """Wait until processes hold this number of batches; {batch id: claim_seq}."""
    eventually(lambda: job.batches.held().count() == number)
    return held_batches(job)


def await_no_held_batch(job: BackgroundJob) -> None:
    eventually(lambda: not job.batches.held().exists())


def held_batches(job: BackgroundJob) -> dict[int, int]:
    return dict(job.batches.held().values_list("pk", "claim_seq"))


def is_reclaimed(job: BackgroundJob, before: dict[int, int]) -> bool:
    """Whether one of the batches that were held before has been claimed again."""
    now = held_batches(job)
    return any(now.get(batch, claim) > claim for batch, claim in before.items())
