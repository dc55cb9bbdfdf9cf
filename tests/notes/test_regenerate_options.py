"""{"dry_run": true} and {"only_stale": true} of POST /semantic/regenerate-embeddings."""

from __future__ import annotations

import pytest
from rest_framework.test import APIClient

from jobs.models import BackgroundJob
from notes.models import Note
from scribes.management.commands.demo import psalm
from scribes.models import User
from tests.conftest import client_of
from tests.notes.test_indexing import regenerate
from tests.processes import at_once

URL = "/semantic/regenerate-embeddings"


@pytest.fixture
def notes(alice: User) -> list[Note]:
    notes = [Note.objects.create(user=alice, **psalm(n)) for n in (1, 23, 133)]
    return [*notes, Note.objects.create(user=alice, title="Blank", content="  ")]


def test_a_dry_run_counts_and_starts_nothing(api: APIClient, notes: list[Note]):
    body = api.post(URL, {"dry_run": True}).json()
    assert body["notes"] == 3
    assert body["passages"] == pytest.approx(4, abs=2)
    assert body["seconds"] is None
    assert not BackgroundJob.objects.exists()


def test_a_dry_run_knows_how_fast_it_went_before(api: APIClient, notes: list[Note]):
    job = regenerate(api)
    BackgroundJob.objects.filter(pk=job.pk).update(completed_at=job.started_at)
    assert api.post(URL, {"dry_run": True}).json()["seconds"] is None
    job.refresh_from_db()
    assert job.started_at
    later = job.started_at.replace(year=job.started_at.year + 1)
    BackgroundJob.objects.filter(pk=job.pk).update(completed_at=later)
    year = (later - job.started_at).total_seconds()
    assert api.post(URL, {"dry_run": True}).json()["seconds"] == round(year)


def test_only_stale_embeds_what_has_changed(api: APIClient, notes: list[Note]):
    regenerate(api)
    assert api.post(URL, {"dry_run": True, "only_stale": True}).json()["notes"] == 0
    notes[1].content = "He maketh me to lie down."
    notes[1].save()
    assert api.post(URL, {"dry_run": True, "only_stale": True}).json()["notes"] == 1
    job = regenerate(api, only_stale=True)
    assert (job.total_items, job.processed_items) == (1, 1)
    assert regenerate(api, only_stale=True).total_items == 0


def test_eta_is_what_is_left_at_the_speed_so_far(api: APIClient, notes: list[Note]):
    job = regenerate(api)
    BackgroundJob.objects.filter(pk=job.pk).update(
        status="running", total_items=8, completed_at=None
    )
    eta = api.get(f"/jobs/{job.pk}").json()["eta_seconds"]
    assert isinstance(eta, int)
    BackgroundJob.objects.filter(pk=job.pk).update(total_items=4)
    assert api.get(f"/jobs/{job.pk}").json()["eta_seconds"] == 0


@pytest.mark.parametrize("body", [{"dry_run": "perhaps"}, {"only_stale": 7}, []])
def test_wrong_options_are_400(api: APIClient, body):
    assert api.post(URL, body).status_code == 400


@pytest.mark.django_db(transaction=True)
def test_fifty_requests_at_once_get_one_job(alice: User):
    answers = at_once(50, lambda _: client_of(alice).post(URL))
    assert {answer.status_code for answer in answers} == {202}
    (job,) = BackgroundJob.objects.all()
    assert {answer.json()["task_id"] for answer in answers} == {str(job.pk)}
