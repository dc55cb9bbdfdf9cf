"""Each task is one call. A message holds ids only: what is true stands in the rows."""

from __future__ import annotations

from uuid import UUID

from celery import shared_task

from jobs import runner


@shared_task
def plan_job(job_id: str) -> None:
    runner.plan(UUID(job_id))


@shared_task
def run_batch(batch_id: int) -> None:
    runner.run_batch(batch_id)
