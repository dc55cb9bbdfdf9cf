"""POST /jobs/{job_id}/cancel and /retry, GET /jobs/{job_id}/failures."""

from __future__ import annotations

import uuid

import pytest
from rest_framework.test import APIClient

from jobs.models import BackgroundJob
from jobs.tasks import plan_job, run_batch
from scribes.models import User
from tests.counting import counted
from tests.jobs.conftest import batch_ids, counts, start


@pytest.fixture
def half_done(alice: User) -> BackgroundJob:
    job = start(alice, 200)
    run_batch(batch_ids(job)[0])
    return job


@pytest.fixture
def with_failures(alice: User) -> BackgroundJob:
    job = start(alice, 30, plans={"3": "raise", "13": "raise", "23": "memory"})
    run_batch(*batch_ids(job))
    return job


def test_cancel_stops_the_job_and_keeps_what_is_finished(api: APIClient, half_done: BackgroundJob):
    response = api.post(f"/jobs/{half_done.pk}/cancel")
    assert response.status_code == 202
    body = response.json()
    assert (body["status"], body["processed_items"]) == ("cancelled", 100)
    assert body["completed_at"] is not None
    for batch_id in batch_ids(half_done):
        run_batch(batch_id)
    assert api.get(f"/jobs/{half_done.pk}").json() == body
    assert counted(half_done) == list(range(100))


def test_cancel_frees_the_way_for_the_next_job(api: APIClient, alice: User):
    first = api.post("/semantic/regenerate-embeddings").json()["task_id"]
    assert api.post(f"/jobs/{first}/cancel").json()["status"] == "cancelled"
    assert api.post("/semantic/regenerate-embeddings").json()["task_id"] != first


def test_cancel_of_an_ended_job_is_409(api: APIClient, half_done: BackgroundJob):
    assert api.post(f"/jobs/{half_done.pk}/cancel").status_code == 202
    response = api.post(f"/jobs/{half_done.pk}/cancel")
    assert response.status_code == 409
    assert response.json()["detail"] == "The job has ended already."


def test_retry_makes_a_job_of_the_failed_items_only(api: APIClient, with_failures: BackgroundJob):
    response = api.post(f"/jobs/{with_failures.pk}/retry")
    assert response.status_code == 202
    body = response.json()
    assert body["retry_of"] == str(with_failures.pk)
    assert response.headers["Location"] == f"/jobs/{body['job_id']}"
    plan_job(body["job_id"])
    retry = BackgroundJob.objects.get(pk=body["job_id"])
    run_batch(*batch_ids(retry))
    retry.refresh_from_db()
    assert (retry.status, counts(retry)) == ("completed", (3, 0, 0))
    assert counted(retry) == [3, 13, 23]
    assert api.post(f"/jobs/{retry.pk}/retry").status_code == 409


def test_retry_is_409_while_the_job_goes_on(api: APIClient, half_done: BackgroundJob):
    running = api.post(f"/jobs/{half_done.pk}/retry")
    assert (running.status_code, running.json()["detail"]) == (409, "The job has not ended yet.")


def test_retry_is_409_while_another_job_of_the_kind_runs(
    api: APIClient, with_failures: BackgroundJob, alice: User
):
    other = start(alice, 5)
    response = api.post(f"/jobs/{with_failures.pk}/retry")
    assert response.status_code == 409
    assert str(other.pk) in response.json()["detail"]


def test_failures_tell_item_cause_and_what_to_do(api: APIClient, with_failures: BackgroundJob):
    body = api.get(f"/jobs/{with_failures.pk}/failures?limit=1&offset=1").json()
    assert body["total"] == 3
    (failure,) = body["failures"]
    assert failure["hint"]
    assert (failure["item_id"], failure["error_class"], failure["message"]) == (
        13,
        "ArithmeticError",
        "13 brings bad luck",
    )


def test_failures_grouped_by_cause(api: APIClient, with_failures: BackgroundJob):
    body = api.get(f"/jobs/{with_failures.pk}/failures?group_by=cause").json()
    groups = [(g["error_class"], g["count"], g["item_ids"]) for g in body["causes"]]
    assert groups == [("ArithmeticError", 2, [3, 13]), ("MemoryError", 1, [23])]
    assert all(group["hint"] for group in body["causes"])


@pytest.mark.parametrize("query", ["group_by=colour", "limit=0", "limit=101", "offset=-1"])
def test_failures_refuse_wrong_queries(api: APIClient, with_failures: BackgroundJob, query: str):
    assert api.get(f"/jobs/{with_failures.pk}/failures?{query}").status_code == 400


@pytest.mark.parametrize(
    ("method", "path"), [("post", "cancel"), ("post", "retry"), ("get", "failures")]
)
def test_foreign_and_missing_jobs_are_404_and_nobody_is_401(
    bobs_api: APIClient, half_done: BackgroundJob, method: str, path: str
):
    for job_id in (half_done.pk, uuid.uuid4()):
        assert getattr(bobs_api, method)(f"/jobs/{job_id}/{path}").status_code == 404
    assert getattr(APIClient(), method)(f"/jobs/{half_done.pk}/{path}").status_code == 401
    half_done.refresh_from_db()
    assert half_done.status == "running"


def test_wrong_methods_are_405(api: APIClient, half_done: BackgroundJob):
    assert api.get(f"/jobs/{half_done.pk}/cancel").status_code == 405
    assert api.get(f"/jobs/{half_done.pk}/retry").status_code == 405
    assert api.post(f"/jobs/{half_done.pk}/failures").status_code == 405
