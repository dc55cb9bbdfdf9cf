"""Each task is one call. A message contains ids only: the rows say what is true."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from celery import Task, shared_task

from jobs import reconciler, runner


@shared_task
def plan_job(job_id: str) -> None:
    runner.plan(UUID(job_id))


@shared_task(bind=True)
def run_batch(self: Task[Any, Any], batch_id: int) -> None:
    queue = (self.request.delivery_info or {}).get("routing_key") or ""
    runner.run_next_batch(batch_id, queue, claimant=self.request.id or "")


@shared_task(acks_late=False)
def reconcile() -> None:
    reconciler.reconcile()
