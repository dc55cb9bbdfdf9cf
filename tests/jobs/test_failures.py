"""GET /jobs/{job_id}/failures."""

from __future__ import annotations

import uuid

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from jobs.job_types import HINTS
from jobs.models import BackgroundJob, ItemFailure
from jobs.presentation import MAX_LISTED_ITEMS
from scribes.models import User
from tests.helpers.counting import Counting
from tests.helpers.factories import make_job


def test_failure_has_item_error_message_and_hint(api: APIClient, with_failures: BackgroundJob):
    body = api.get(f"/jobs/{with_failures.pk}/failures?limit=1&offset=1").json()
    assert body["total"] == 3
    assert body["failures"] == [
        {
            "item_id": 13,
            "error_class": "ArithmeticError",
            "message": "13 brings bad luck",
            "hint": Counting.hints["ArithmeticError"],
        }
    ]


def test_failures_can_be_grouped_by_cause(api: APIClient, with_failures: BackgroundJob):
    body = api.get(f"/jobs/{with_failures.pk}/failures?group_by=cause").json()
    groups = [(g["error_class"], g["count"], g["item_ids"]) for g in body["causes"]]
    assert groups == [("ArithmeticError", 2, [3, 13]), ("MemoryError", 1, [23])]
    hints = [group["hint"] for group in body["causes"]]
    assert hints == [Counting.hints["ArithmeticError"], HINTS["MemoryError"]]


def test_cause_lists_its_first_items_only(api: APIClient, alice: User):
    job = make_job(alice, status="completed")
    ItemFailure.objects.bulk_create(
        ItemFailure(job=job, item_id=number, error_class="ValueError", message="no")
        for number in range(MAX_LISTED_ITEMS + 1)
    )
    [cause] = api.get(f"/jobs/{job.pk}/failures?group_by=cause").json()["causes"]
    assert cause["count"] == MAX_LISTED_ITEMS + 1
    assert cause["item_ids"] == list(range(MAX_LISTED_ITEMS))


def test_failures_of_other_jobs_are_not_listed(
    api: APIClient, with_failures: BackgroundJob, bob: User
):
    other = make_job(bob)
    ItemFailure.objects.create(job=other, item_id=1, error_class="Bobs", message="no")
    assert api.get(f"/jobs/{with_failures.pk}/failures").json()["total"] == 3
    causes = api.get(f"/jobs/{with_failures.pk}/failures?group_by=cause").json()["causes"]
    assert "Bobs" not in [cause["error_class"] for cause in causes]


def test_failures_read_the_job_once(api: APIClient, alice: User):
    """The parameters of a retry may list thousands of ids. They are not read again for each row."""
    job = make_job(alice, status="completed", parameters={"item_ids": list(range(5000))})
    ItemFailure.objects.bulk_create(
        ItemFailure(job=job, item_id=number, error_class="ValueError", message="no")
        for number in range(20)
    )
    with CaptureQueriesContext(connection) as queries:
        assert len(api.get(f"/jobs/{job.pk}/failures").json()["failures"]) == 20
    assert sum('"parameters"' in query["sql"] for query in queries) == 1


@pytest.mark.parametrize("query", ["group_by=colour", "limit=0", "limit=101", "offset=-1"])
def test_failures_refuse_wrong_queries(api: APIClient, with_failures: BackgroundJob, query: str):
    assert api.get(f"/jobs/{with_failures.pk}/failures?{query}").status_code == 400


def test_failures_are_404_for_jobs_of_others(bobs_api: APIClient, with_failures: BackgroundJob):
    foreign = bobs_api.get(f"/jobs/{with_failures.pk}/failures")
    missing = bobs_api.get(f"/jobs/{uuid.uuid4()}/failures")
    assert foreign.status_code == missing.status_code == 404
    assert foreign.json() == missing.json()


def test_failures_are_401_without_authentication(with_failures: BackgroundJob):
    assert APIClient().get(f"/jobs/{with_failures.pk}/failures").status_code == 401


def test_failures_are_405_for_post(api: APIClient, with_failures: BackgroundJob):
    assert api.post(f"/jobs/{with_failures.pk}/failures").status_code == 405
