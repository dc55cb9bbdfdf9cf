"""Cancel, retry and repeat: the endpoints, and the table that the admin's buttons come from."""

from __future__ import annotations

import uuid

import pytest
from rest_framework.test import APIClient

from jobs.models import BackgroundJob
from jobs.operations import OPERATIONS, OperationRefused, available_operations
from jobs.tasks import plan_job
from scribes.models import User
from tests.helpers.counting import counted
from tests.helpers.factories import make_job
from tests.helpers.jobs import batch_ids, item_counts, run_batch, run_job, start_counting

# --- POST /jobs/{job_id}/cancel -------------------------------------------------------------


def test_cancel_stops_the_job_and_keeps_finished_batches(api: APIClient, half_done: BackgroundJob):
    response = api.post(f"/jobs/{half_done.pk}/cancel")
    assert response.status_code == 202
    body = response.json()
    assert (body["status"], body["processed_items"]) == ("cancelled", 100)
    assert body["completed_at"] is not None
    for batch_id in batch_ids(half_done):
        run_batch(batch_id)
    assert api.get(f"/jobs/{half_done.pk}").json() == body
    assert counted(half_done) == list(range(100))


def test_cancel_makes_room_for_the_next_job(api: APIClient, alice: User):
    first = api.post("/semantic/regenerate-embeddings").json()["task_id"]
    assert api.post(f"/jobs/{first}/cancel").json()["status"] == "cancelled"
    assert api.post("/semantic/regenerate-embeddings").json()["task_id"] != first


def test_cancel_is_409_when_the_job_has_ended(api: APIClient, half_done: BackgroundJob):
    assert api.post(f"/jobs/{half_done.pk}/cancel").status_code == 202
    response = api.post(f"/jobs/{half_done.pk}/cancel")
    assert response.status_code == 409
    assert response.json()["detail"] == "The job has already ended."


# --- POST /jobs/{job_id}/retry --------------------------------------------------------------


def test_retry_starts_a_job_of_the_failed_items(api: APIClient, with_failures: BackgroundJob):
    response = api.post(f"/jobs/{with_failures.pk}/retry")
    assert response.status_code == 202
    body = response.json()
    assert body["retry_of"] == str(with_failures.pk)
    assert response.headers["Location"] == f"/jobs/{body['job_id']}"
    plan_job(body["job_id"])
    retry = BackgroundJob.objects.get(pk=body["job_id"])
    run_batch(*batch_ids(retry))
    retry.refresh_from_db()
    assert (retry.status, item_counts(retry)) == ("completed", (3, 0, 0))
    assert counted(retry) == [3, 13, 23]


def test_retry_is_409_when_nothing_failed(api: APIClient, alice: User):
    job = run_job(start_counting(alice, 5))
    response = api.post(f"/jobs/{job.pk}/retry")
    assert response.status_code == 409
    assert response.json()["detail"] == "Nothing failed in this job."


def test_retry_is_409_while_the_job_is_running(api: APIClient, half_done: BackgroundJob):
    response = api.post(f"/jobs/{half_done.pk}/retry")
    assert (response.status_code, response.json()["detail"]) == (409, "The job has not ended yet.")


def test_retry_is_409_while_another_job_is_active(
    api: APIClient, with_failures: BackgroundJob, alice: User
):
    other = start_counting(alice, 5)
    response = api.post(f"/jobs/{with_failures.pk}/retry")
    assert response.status_code == 409
    assert response.json()["detail"] == f"Another job is active: {other.pk}."


# --- Access ---------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["cancel", "retry"])
def test_operation_is_404_for_jobs_of_others(
    bobs_api: APIClient, half_done: BackgroundJob, operation: str
):
    foreign = bobs_api.post(f"/jobs/{half_done.pk}/{operation}")
    missing = bobs_api.post(f"/jobs/{uuid.uuid4()}/{operation}")
    assert foreign.status_code == missing.status_code == 404
    assert foreign.json() == missing.json()
    half_done.refresh_from_db()
    assert half_done.status == "running"


@pytest.mark.parametrize("operation", ["cancel", "retry"])
def test_operation_is_401_without_authentication(half_done: BackgroundJob, operation: str):
    assert APIClient().post(f"/jobs/{half_done.pk}/{operation}").status_code == 401
    half_done.refresh_from_db()
    assert half_done.status == "running"


@pytest.mark.parametrize("operation", ["cancel", "retry"])
def test_operation_is_405_for_get(api: APIClient, half_done: BackgroundJob, operation: str):
    assert api.get(f"/jobs/{half_done.pk}/{operation}").status_code == 405


# --- The table ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "failed_items", "names"),
    [
        ("queued", 0, ["cancel"]),
        ("running", 1, ["cancel"]),
        ("completed", 0, ["repeat"]),
        ("completed", 1, ["retry", "repeat"]),
        ("failed", 1, ["retry", "repeat"]),
        ("cancelled", 0, ["repeat"]),
    ],
)
def test_available_operations_depend_on_the_state(
    alice: User, status: str, failed_items: int, names: list[str]
):
    job = make_job(alice, status=status, total_items=2, failed_items=failed_items)
    assert [name for name, _ in available_operations(job)] == names


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("cancel", "completed", "it has already ended"),
        ("retry", "running", "it has not ended yet"),
        ("retry", "completed", "nothing failed in it"),
        ("repeat", "running", "it has not ended yet"),
    ],
)
def test_operation_is_refused_in_the_wrong_state(alice: User, name: str, status: str, reason: str):
    job = make_job(alice, status=status)
    with pytest.raises(OperationRefused, match=reason):
        OPERATIONS[name].perform(job)
    assert BackgroundJob.objects.get().status == status


@pytest.mark.parametrize("name", ["retry", "repeat"])
def test_operation_is_refused_while_another_job_is_active(
    with_failures: BackgroundJob, alice: User, name: str
):
    start_counting(alice, 5)
    with pytest.raises(OperationRefused, match="another job of the same owner is active"):
        OPERATIONS[name].perform(with_failures)
    assert BackgroundJob.objects.count() == 2


def test_repeat_starts_a_job_with_the_same_parameters(with_failures: BackgroundJob):
    assert OPERATIONS["repeat"].perform(with_failures) == "started again"
    job = BackgroundJob.objects.get(retry_of=with_failures)
    assert (job.parameters, job.user) == (with_failures.parameters, with_failures.user)
    assert job.status == "queued"
