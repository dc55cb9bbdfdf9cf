"""A regeneration of embeddings over HTTP, with a real web process and real workers."""

from __future__ import annotations

from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from notes.embeddings.encoder import encoder
from notes.embeddings.pipeline import passages_of
from notes.models import Note, Passage
from tests.helpers.processes import Process, eventually
from tests.helpers.samples import psalm
from tests.helpers.servers import Web, worker_process


@pytest.fixture
def web(web: Web) -> Web:
    web.sign_up("alice@example.com")
    return web


def import_psalms(web: Web, numbers: range = range(1, 151)) -> None:
    """Create a note with the first eight verses of each: whole psalms would take longer."""
    for number in numbers:
        note = psalm(number)
        note["content"] = "\n".join(note["content"].splitlines()[:8])
        assert web.post("/notes", json=note).status_code == 201


def poll(web: Web, job_id: str) -> list[dict[str, Any]]:
    """Poll the job until it has ended; all its answers."""
    answers: list[dict[str, Any]] = []

    def ended() -> bool:
        answers.append(web.get(f"/jobs/{job_id}").json())
        return answers[-1]["completed_at"] is not None

    eventually(ended, lambda: [job["progress_percent"] for job in answers[-1:]])
    return answers


@cache
def reference_model() -> SentenceTransformer:
    return SentenceTransformer(str(encoder().path), device="cpu")


def test_regeneration_embeds_150_notes_in_two_batches(web: Web, worker: Process):
    import_psalms(web)

    answer = web.post("/semantic/regenerate-embeddings")
    assert answer.status_code == 202
    assert answer.json()["status"] == "queued"
    job_id = answer.json()["task_id"]
    assert answer.headers["Location"] == f"/jobs/{job_id}"

    seen = poll(web, job_id)
    assert [percent for percent, _ in groupby(job["progress_percent"] for job in seen)] == [
        *(0, 67, 100)
    ]
    job = seen[-1]
    assert job["status"] == "completed"
    assert job["job_type"] == "embedding_regeneration"
    assert (job["total_items"], job["processed_items"], job["failed_items"]) == (150, 150, 0)
    assert job["created_at"] <= job["started_at"] <= job["completed_at"]
    assert job["result_data"]["embedded_notes"] == 150
    assert job["error_message"] is None

    assert_logged_in_order(worker.output, job_id)
    assert_vectors_equal_the_models(web)
    assert_found_by_semantic_search(web)


def assert_logged_in_order(log: str, job_id: str):
    lines = (
        f"Job {job_id}: Processing 150 notes",
        f"Job {job_id}: 100/150 processed, 0 failed, 67% done",
        f"Job {job_id}: 150/150 processed, 0 failed, 100% done",
        f"Job {job_id}: complete, 150 succeeded, 0 failed",
    )
    positions = [log.find(line) for line in lines]
    assert -1 not in positions, log
    assert positions == sorted(positions)


def assert_vectors_equal_the_models(web: Web):
    """Compare each passage's vector with the one that sentence-transformers computes."""
    passages = list(Passage.objects.order_by("note_id", "ordinal"))
    notes = Note.objects.order_by("pk")
    texts = [text for note in notes for text in passages_of(note, encoder())[1]]
    expected = reference_model().encode(texts, normalize_embeddings=True)
    stored = np.array([p.vector for p in passages])
    cosines = (expected * stored).sum(axis=1) / np.linalg.norm(stored, axis=1)
    assert {p.note_id for p in passages} == set(Note.objects.values_list("pk", flat=True))
    assert cosines.min() >= 0.9999
    status = web.get("/semantic/status").json()
    assert (status["coverage_percent"], status["dimension"]) == (100.0, 384)


def assert_found_by_semantic_search(web: Web):
    query = {"query": "The Lord looks after me like a shepherd, I lack nothing"}
    found = web.post("/semantic/search", json=query).json()["results"]
    assert found[0]["note"]["title"] == "Psalm 23"
    assert found[0]["passage"]["text"].startswith("The LORD is my shepherd")


def test_workers_share_the_batches_of_a_job(web: Web, tmp_path: Path):
    import_psalms(web, range(1, 41))
    small_batches = {"JOB_BATCH_SIZE": "10"}
    with (
        worker_process(tmp_path, "first", **small_batches) as first,
        worker_process(tmp_path, "second", **small_batches) as second,
    ):
        job_id = web.post("/semantic/regenerate-embeddings").json()["task_id"]
        job = poll(web, job_id)[-1]
    assert (job["status"], job["processed_items"]) == ("completed", 40)
    for process in (first, second):
        assert f"Job {job_id}: " in process.output
        assert "/40 processed, 0 failed" in process.output
