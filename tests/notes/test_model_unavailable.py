"""Without a model: clear answers, and a job that ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from rest_framework.test import APIClient

from notes import embedding
from notes.models import Note
from scribes.models import User
from tests.notes.test_indexing import regenerate

CACHED = (embedding._engine, embedding.model_version, embedding._config, embedding._tokenizer)


@pytest.fixture
def no_model(tmp_path: Path, settings) -> Iterator[None]:
    settings.EMBEDDING_MODEL = str(tmp_path / "nothing")
    for cached in CACHED:
        cached.cache_clear()
    yield
    for cached in CACHED:
        cached.cache_clear()


@pytest.mark.usefixtures("no_model")
def test_search_and_status_are_503_with_the_reason(api: APIClient):
    for response in (
        api.post("/semantic/search", {"query": "rest"}),
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
