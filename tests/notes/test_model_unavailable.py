"""Without a model: clear answers, and a job that ends."""

from __future__ import annotations

import pytest
from rest_framework.test import APIClient

from notes.models import Note
from scribes.models import User
from tests.notes.test_indexing import regenerate


@pytest.mark.usefixtures("no_model")
def test_status_and_estimate_are_503_with_the_reason(api: APIClient):
    for response in (
        api.get("/semantic/status"),
        api.post("/semantic/regenerate-embeddings", {"dry_run": True, "only_stale": True}),
    ):
        assert response.status_code == 503
        assert "No embedding model at" in response.json()["detail"]


@pytest.mark.usefixtures("no_model")
def test_a_job_ends_with_each_note_failed_and_can_be_retried(api: APIClient, alice: User):
    Note.objects.create(user=alice, title="Rest", content="Beside the still waters.")
    job = regenerate(api)
    assert (job.status, job.failed_items) == ("completed", 1)
    (cause,) = api.get(f"/jobs/{job.pk}/failures?group_by=cause").json()["causes"]
    assert cause["error_class"] == "ModelUnavailable"
    assert "EMBEDDING_MODEL" in cause["hint"]


@pytest.mark.usefixtures("no_model")
def test_a_search_finds_words_and_says_so(api: APIClient, alice: User):
    note = Note.objects.create(user=alice, title="Rest", content="Beside the still waters.")
    for mode in ("hybrid", "meaning"):
        answer = api.post("/semantic/search", {"query": "waters", "mode": mode}).json()
        assert answer["degraded"] == ["meaning"]
        (found,) = answer["results"]
        assert (found["note"]["id"], found["why"]) == (note.pk, "words")
        assert found["similarity_score"] is None
    assert api.get(f"/semantic/similar/{note.pk}").json() == {
        "results": [],
        "degraded": ["meaning"],
    }
