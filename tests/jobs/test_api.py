"""GET /jobs, /jobs/{job_id}, /jobs/{job_id}/status; and views that start a job."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from rest_framework import serializers
from rest_framework.response import Response
from rest_framework.test import APIClient, APIRequestFactory, force_authenticate

from jobs.models import BackgroundJob
from jobs.views import StartJobView
from scribes.models import User
from tests.helpers.counting import Counting
from tests.helpers.factories import make_job


@pytest.fixture
def job(alice: User) -> BackgroundJob:
    return make_job(
        alice,
        status="running",
        total_items=150,
        processed_items=97,
        failed_items=1,
        skipped_items=2,
    )


# --- One job --------------------------------------------------------------------------------


def test_detail_has_all_fields(api: APIClient, job: BackgroundJob):
    body = api.get(f"/jobs/{job.job_id}").json()
    assert body == {
        "job_id": str(job.job_id),
        "job_type": "embedding_regeneration",
        "status": "running",
        "progress_percent": 67,
        "total_items": 150,
        "processed_items": 97,
        "failed_items": 1,
        "skipped_items": 2,
        "created_at": job.created_at.isoformat().replace("+00:00", "Z"),
        "started_at": None,
        "completed_at": None,
        "eta_seconds": None,
        "result_data": None,
        "error_message": None,
        "retry_of": None,
    }


def test_detail_has_the_eta_of_a_running_job(api: APIClient, alice: User):
    started = timezone.now() - timedelta(seconds=30)
    job = make_job(alice, status="running", total_items=200, processed_items=50, started_at=started)
    assert api.get(f"/jobs/{job.job_id}").json()["eta_seconds"] >= 90


def test_status_describes_the_job_in_a_sentence(api: APIClient, job: BackgroundJob):
    body = api.get(f"/jobs/{job.job_id}/status").json()
    assert body == {
        "job_id": str(job.job_id),
        "status": "running",
        "progress_percent": 67,
        "description": "The job is running: 100 of 150 notes done, 1 failed.",
    }


@pytest.mark.parametrize(
    ("status", "beginning"),
    [
        ("queued", "The job is waiting for a worker."),
        ("completed", "The job is complete: 0 of 0 notes done, 0 failed."),
        ("failed", "The job failed: out of luck"),
        ("cancelled", "The job was cancelled: 0 of 0 notes done, 0 failed."),
    ],
)
def test_status_describes_every_state(api: APIClient, alice: User, status: str, beginning: str):
    job = make_job(alice, status=status, error_message="out of luck")
    description = api.get(f"/jobs/{job.job_id}/status").json()["description"]
    assert description.startswith(beginning)


@pytest.mark.parametrize("path", ["", "/status"])
def test_job_of_another_user_is_404(bobs_api: APIClient, job: BackgroundJob, path: str):
    foreign = bobs_api.get(f"/jobs/{job.job_id}{path}")
    missing = bobs_api.get(f"/jobs/{uuid.uuid4()}{path}")
    assert foreign.status_code == missing.status_code == 404
    assert foreign.json() == missing.json()


def test_malformed_id_is_404(api: APIClient):
    assert api.get("/jobs/12").status_code == 404


def test_jobs_are_401_without_authentication(job: BackgroundJob):
    for path in ("/jobs", f"/jobs/{job.job_id}", f"/jobs/{job.job_id}/status"):
        assert APIClient().get(path).status_code == 401


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_jobs_are_405_for_writing(api: APIClient, job: BackgroundJob, method: str):
    assert getattr(api, method)(f"/jobs/{job.job_id}").status_code == 405
    assert getattr(api, method)("/jobs").status_code == 405


# --- The list -------------------------------------------------------------------------------


def test_list_is_newest_first_in_pages(api: APIClient, alice: User):
    jobs = [make_job(alice, minutes_ago=n, status="completed") for n in range(5)]
    body = api.get("/jobs?limit=2&offset=1").json()
    assert body["total"] == 5
    assert [job["job_id"] for job in body["jobs"]] == [str(job.pk) for job in jobs[1:3]]
    assert api.get("/jobs?offset=99").json() == {"jobs": [], "total": 5}


def test_list_has_20_jobs_by_default(api: APIClient, alice: User):
    for n in range(21):
        make_job(alice, minutes_ago=n, status="completed")
    assert len(api.get("/jobs").json()["jobs"]) == 20
    assert len(api.get("/jobs?limit=100").json()["jobs"]) == 21


def test_list_filters_by_status_and_type(api: APIClient, alice: User):
    running = make_job(alice, status="running")
    make_job(alice, status="completed")
    make_job(alice, status="running", job_type="retired_type")
    body = api.get("/jobs?status=running&job_type=embedding_regeneration").json()
    assert (body["total"], body["jobs"][0]["job_id"]) == (1, str(running.pk))
    assert api.get("/jobs?status=running").json()["total"] == 2


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=ten", "limit"),
        ("limit=%00", "limit"),
        ("offset=-1", "offset"),
        ("offset=99999999999999999999", "offset"),
        ("status=sleeping", "status"),
        ("status=%00", "status"),
        ("job_type=baking", "job_type"),
        ("job_type=%00", "job_type"),
    ],
)
def test_list_refuses_wrong_queries(api: APIClient, query: str, param: str):
    response = api.get(f"/jobs?{query}")
    assert response.status_code == 400
    assert response.json()["errors"][0]["param"] == param


def test_list_has_the_users_own_jobs_only(bobs_api: APIClient, job: BackgroundJob):
    assert bobs_api.get("/jobs").json() == {"jobs": [], "total": 0}


# --- Views that start a job -----------------------------------------------------------------


class CountQuery(serializers.Serializer[Any]):
    count = serializers.IntegerField(min_value=0)


class StartCounting(StartJobView):
    job_type = Counting.name
    serializer_class = CountQuery


def start(user: User, **data: int) -> Response:
    request = APIRequestFactory().post("/count", data)
    force_authenticate(request, user)
    response = StartCounting.as_view()(request)
    assert isinstance(response, Response)
    return response


def test_start_view_answers_with_the_new_job(alice: User):
    response = start(alice, count=5)
    job = BackgroundJob.objects.get()
    assert (job.user, job.job_type, job.parameters) == (alice, "counting", {"count": 5})
    assert response.status_code == 202
    assert response.headers["Location"] == f"/jobs/{job.pk}"
    assert response.data == {
        "message": f"Counting has been queued; follow it at /jobs/{job.pk}.",
        "status": "queued",
        "task_id": str(job.pk),
    }


def test_start_view_answers_with_the_active_job(alice: User):
    job = make_job(alice, job_type="counting", status="running")
    response = start(alice, count=5)
    assert BackgroundJob.objects.count() == 1
    assert response.status_code == 202
    assert response.data == {
        "message": f"Counting is already active; follow it at /jobs/{job.pk}.",
        "status": "running",
        "task_id": str(job.pk),
    }


def test_start_view_refuses_wrong_parameters(alice: User):
    assert start(alice, count=-1).status_code == 400
    assert not BackgroundJob.objects.exists()
