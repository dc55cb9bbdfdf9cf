from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from jobs.models import BackgroundJob
from jobs.runner import enqueue
from jobs.tasks import plan_job
from scribes.models import User
from tests.counting import create_table


@pytest.fixture(autouse=True)
def counted_table(request: pytest.FixtureRequest) -> None:
    """In whatever transaction the test has."""
    needed = ("db", "transactional_db", "alice")
    if any(name in request.fixturenames for name in needed):
        request.getfixturevalue("alice")
        create_table()


def make_job(user: User, *, minutes_ago: int = 0, **fields) -> BackgroundJob:
    created = timezone.now() - timedelta(minutes=minutes_ago)
    defaults = {
        "job_type": "embedding_regeneration",
        "created_at": created,
        "dispatched_at": created,
    }
    job = BackgroundJob.objects.create(user=user, **(defaults | fields))
    job.refresh_from_db()
    return job


def start(user: User, count: int, **parameters) -> BackgroundJob:
    """A planned job of the tests' own type."""
    job, _ = enqueue(user, "counting", {"count": count} | parameters)
    plan_job(str(job.pk))
    job.refresh_from_db()
    return job


def batch_ids(job: BackgroundJob) -> list[int]:
    return list(job.batches.order_by("number").values_list("pk", flat=True))


def counts(job: BackgroundJob) -> tuple[int, int, int]:
    return job.processed_items, job.failed_items, job.skipped_items
