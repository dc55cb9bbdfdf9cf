"""How long a job takes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from jobs.estimate import SAMPLE_SIZE, eta_seconds, items_per_second
from jobs.models import BackgroundJob
from scribes.models import User
from tests.helpers.factories import make_job

NOW = timezone.now()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"status": "running", "processed_items": 50}, 90),
        ({"status": "running", "failed_items": 20, "skipped_items": 30}, 90),
        ({"status": "running", "processed_items": 200}, 0),
        ({"status": "running"}, None),
        ({"status": "running", "processed_items": 50, "started_at": None}, None),
        ({"status": "cancelled", "processed_items": 50}, None),
    ],
)
def test_eta_follows_from_the_speed_so_far(
    alice: User, fields: dict[str, Any], expected: int | None
):
    times = {"started_at": NOW - timedelta(seconds=30)}
    job = make_job(alice, total_items=200, **(times | fields))
    assert eta_seconds(job, NOW) == expected


def completed(user: User, items: int, seconds: float, **fields: Any) -> BackgroundJob:
    ended = fields.pop("completed_at", NOW)
    started = ended - timedelta(seconds=seconds)
    times = {"started_at": started, "completed_at": ended}
    counts = {"total_items": items, "processed_items": items}
    return make_job(user, **({"status": "completed"} | times | counts | fields))


def test_speed_is_the_mean_of_the_latest_jobs(alice: User, bob: User):
    for number in range(SAMPLE_SIZE):
        completed(bob if number else alice, items=100, seconds=10)
    completed(alice, items=10_000, seconds=1, completed_at=NOW - timedelta(hours=1))
    assert items_per_second("embedding_regeneration") == pytest.approx(10)


def test_speed_takes_completed_jobs_of_the_type_only(alice: User):
    completed(alice, items=100, seconds=10)
    completed(alice, items=100, seconds=1, status="failed")
    completed(alice, items=100, seconds=1, job_type="counting")
    completed(alice, items=0, seconds=100)
    assert items_per_second("embedding_regeneration") == pytest.approx(10)


def test_speed_is_unknown_without_completed_jobs(alice: User):
    completed(alice, items=100, seconds=10, job_type="counting")
    assert items_per_second("embedding_regeneration") is None
