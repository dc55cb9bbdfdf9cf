"""Without a model, requests are answered clearly and jobs end."""

from __future__ import annotations

from pathlib import Path

import pytest
from rest_framework.test import APIClient

from notes.models import EmbeddingModel
from scribes.models import User
from tests.helpers.factories import make_note
from tests.helpers.jobs import regenerate
from tests.helpers.notes import embed_note


@pytest.mark.usefixtures("no_model")
def test_estimate_is_503_with_the_reason(api: APIClient):
    body = {"dry_run": True, "only_stale": True}
    response = api.post("/semantic/regenerate-embeddings", body)
    assert response.status_code == 503
    assert "No embedding model at" in response.json()["detail"]


def test_status_is_complete_and_degraded(api: APIClient, alice: User, tmp_path: Path):
    note = make_note(alice)
    make_note(alice, "Blank", content="")
    embed_note(note.pk)
    counts = api.get("/semantic/status").json()
    assert (counts["current"], counts["dimension"], counts["degraded"]) == (1, 384, [])
    EmbeddingModel.objects.update(path=str(tmp_path))
    broken = {"model": "all-MiniLM-L6-v2", "dimension": None, "degraded": ["semantic"]}
    assert api.get("/semantic/status").json() == counts | broken


@pytest.mark.usefixtures("no_model")
def test_status_works_before_the_first_model(api: APIClient, alice: User):
    make_note(alice)
    status = api.get("/semantic/status").json()
    assert (status["missing"], status["coverage_percent"], status["model"]) == (1, 0.0, "nothing")
    assert (status["dimension"], status["degraded"]) == (None, ["semantic"])


@pytest.mark.usefixtures("no_model")
def test_job_completes_with_failed_notes(api: APIClient, alice: User):
    make_note(alice)
    job = regenerate(api)
    assert (job.status, job.failed_items) == ("completed", 1)
    (cause,) = api.get(f"/jobs/{job.pk}/failures?group_by=cause").json()["causes"]
    assert cause["error_class"] == "ModelUnavailable"
    assert "EMBEDDING_MODEL" in cause["hint"]


@pytest.mark.usefixtures("no_model")
def test_search_falls_back_to_keywords(api: APIClient, alice: User):
    note = make_note(alice)
    for mode in ("hybrid", "semantic"):
        answer = api.post("/semantic/search", {"query": "waters", "mode": mode}).json()
        assert answer["degraded"] == ["semantic"]
        (found,) = answer["results"]
        assert (found["note"]["id"], found["matched_by"]) == (note.pk, "keyword")
        assert found["similarity_score"] is None
    assert api.get(f"/semantic/similar/{note.pk}").json() == {
        "results": [],
        "degraded": ["semantic"],
    }
