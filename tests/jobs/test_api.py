"""GET /jobs, /jobs/{job_id}, /jobs/{job_id}/status."""

from __future__ import annotations

import uuid

import pytest
from rest_framework.test import APIClient

from jobs.models import BackgroundJob
from scribes.models import User
from tests.jobs.conftest import make_job


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


def test_detail_has_everything_a_client_needs(api: APIClient, job: BackgroundJob):
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


def test_status_is_a_sentence(api: APIClient, job: BackgroundJob):
    body = api.get(f"/jobs/{job.job_id}/status").json()
    assert body == {
        "job_id": str(job.job_id),
        "status": "running",
        "progress_percent": 67,
        "sentence": "The job is running: 100 of 150 notes done, 1 failed.",
    }


@pytest.mark.parametrize(
    ("status", "beginning"),
    [
        ("queued", "The job is waiting"),
        ("completed", "The job is complete: 0 of 0 notes"),
        ("failed", "The job failed: out of luck"),
        ("cancelled", "The job was cancelled"),
    ],
)
def test_every_status_has_its_sentence(api: APIClient, alice: User, status: str, beginning: str):
    job = make_job(alice, status=status, error_message="out of luck")
    assert api.get(f"/jobs/{job.job_id}/status").json()["sentence"].startswith(beginning)


@pytest.mark.parametrize(
    ("status", "done", "total", "percent"),
    [
        ("queued", 0, 0, 0),
        ("running", 0, 0, 0),
        ("completed", 0, 0, 100),
        ("running", 1, 300, 0),
        ("running", 1, 150, 1),
        ("running", 1999, 2000, 99),
        ("cancelled", 2000, 2000, 99),
        ("completed", 2000, 2000, 100),
    ],
)
def test_progress_is_100_only_when_complete(
    alice: User, status: str, done: int, total: int, percent: int
):
    job = make_job(alice, status=status, processed_items=done, total_items=total)
    assert job.progress_percent == percent


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


@pytest.mark.parametrize("path", ["", "/status"])
def test_foreign_and_missing_jobs_are_the_same_404(
    bobs_api: APIClient, job: BackgroundJob, path: str
):
    foreign = bobs_api.get(f"/jobs/{job.job_id}{path}")
    missing = bobs_api.get(f"/jobs/{uuid.uuid4()}{path}")
    assert foreign.status_code == missing.status_code == 404
    assert foreign.json() == missing.json()


def test_list_shows_only_ones_own(bobs_api: APIClient, job: BackgroundJob):
    assert bobs_api.get("/jobs").json() == {"jobs": [], "total": 0}


def test_malformed_id_is_404(api: APIClient):
    assert api.get("/jobs/12").status_code == 404


def test_nobody_is_401(job: BackgroundJob):
    for path in ("/jobs", f"/jobs/{job.job_id}", f"/jobs/{job.job_id}/status"):
        assert APIClient().get(path).status_code == 401


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_jobs_change_by_themselves_only(api: APIClient, job: BackgroundJob, method: str):
    assert getattr(api, method)(f"/jobs/{job.job_id}").status_code == 405
    assert getattr(api, method)("/jobs").status_code == 405
