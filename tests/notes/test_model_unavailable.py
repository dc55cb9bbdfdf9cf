"""Without a model: clear answers, and a job that ends."""

from __future__ import annotations

from pathlib import Path

import pytest
from rest_framework.test import APIClient

from notes.models import EmbeddingModel, Note
from notes.tasks import embed_note
from scribes.models import User
from tests.notes.test_indexing import regenerate


@pytest.mark.usefixtures("no_model")
def test_an_estimate_is_503_with_the_reason(api: APIClient):
    body = {"dry_run": True, "only_stale": True}
    response = api.post("/semantic/regenerate-embeddings", body)
    assert response.status_code == 503
    assert "No embedding model at" in response.json()["detail"]


def test_status_counts_all_the_same_and_says_so(api: APIClient, alice: User, tmp_path: Path):
    note = Note.objects.create(user=alice, title="Rest", content="Beside the still waters.")
    Note.objects.create(user=alice, title="Blank")
    embed_note(note.pk)
    counts = api.get("/semantic/status").json()
    assert (counts["current"], counts["dimension"], counts["degraded"]) == (1, 384, [])
    EmbeddingModel.objects.update(path=str(tmp_path))
    broken = {"model": "all-MiniLM-L6-v2", "dimension": None, "degraded": ["meaning"]}
    assert api.get("/semantic/status").json() == counts | broken


@pytest.mark.usefixtures("no_model")
def test_status_before_there_ever_was_a_model(api: APIClient, alice: User):
    Note.objects.create(user=alice, title="Rest", content="Beside the still waters.")
    status = api.get("/semantic/status").json()
    assert (status["missing"], status["coverage_percent"], status["model"]) == (1, 0.0, "nothing")
    assert (status["dimension"], status["degraded"]) == (None, ["meaning"])


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
