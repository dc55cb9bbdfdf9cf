"""{"dry_run": true} and {"only_stale": true} of POST /semantic/regenerate-embeddings."""

from __future__ import annotations

import pytest
from rest_framework.test import APIClient

from jobs.models import BackgroundJob
from notes.models import Note
from scribes.models import User
from tests.helpers.factories import make_note
from tests.helpers.jobs import regenerate
from tests.helpers.people import client_of
from tests.helpers.processes import run_concurrently
from tests.helpers.samples import psalm

URL = "/semantic/regenerate-embeddings"


@pytest.fixture
def notes(alice: User) -> list[Note]:
    notes = [make_note(alice, **psalm(n)) for n in (1, 23, 133)]
    return [*notes, make_note(alice, "Blank", content="  ")]


def test_dry_run_estimates_without_starting_a_job(api: APIClient, notes: list[Note]):
    body = api.post(URL, {"dry_run": True}).json()
    assert body["notes"] == 3
    assert body["passages"] == pytest.approx(4, abs=2)
    assert body["seconds"] is None
    assert not BackgroundJob.objects.exists()


def test_dry_run_uses_the_speed_of_earlier_jobs(api: APIClient, notes: list[Note]):
    job = regenerate(api)
    BackgroundJob.objects.filter(pk=job.pk).update(completed_at=job.started_at)
    assert api.post(URL, {"dry_run": True}).json()["seconds"] is None
    job.refresh_from_db()
    assert job.started_at
    later = job.started_at.replace(year=job.started_at.year + 1)
    BackgroundJob.objects.filter(pk=job.pk).update(completed_at=later)
    year = (later - job.started_at).total_seconds()
    assert api.post(URL, {"dry_run": True}).json()["seconds"] == round(year)


def test_only_stale_embeds_changed_notes(api: APIClient, notes: list[Note]):
    regenerate(api)
    assert api.post(URL, {"dry_run": True, "only_stale": True}).json()["notes"] == 0
    notes[1].content = "He maketh me to lie down."
    notes[1].save()
    assert api.post(URL, {"dry_run": True, "only_stale": True}).json()["notes"] == 1
    job = regenerate(api, only_stale=True)
    assert (job.total_items, job.processed_items) == (1, 1)
    assert regenerate(api, only_stale=True).total_items == 0


def test_eta_is_the_remaining_work_at_the_current_speed(api: APIClient, notes: list[Note]):
    job = regenerate(api)
    BackgroundJob.objects.filter(pk=job.pk).update(
        status="running", total_items=8, completed_at=None
    )
    eta = api.get(f"/jobs/{job.pk}").json()["eta_seconds"]
    assert isinstance(eta, int)
    BackgroundJob.objects.filter(pk=job.pk).update(total_items=4)
    assert api.get(f"/jobs/{job.pk}").json()["eta_seconds"] == 0


@pytest.mark.parametrize("body", [{"dry_run": "perhaps"}, {"only_stale": 7}, []])
def test_invalid_options_are_400(api: APIClient, body):
    assert api.post(URL, body).status_code == 400


@pytest.mark.django_db(transaction=True)
def test_fifty_concurrent_requests_start_one_job(alice: User):
    answers = run_concurrently(50, lambda _: client_of(alice).post(URL))
    assert {answer.status_code for answer in answers} == {202}
    (job,) = BackgroundJob.objects.all()
    assert {answer.json()["task_id"] for answer in answers} == {str(job.pk)}
