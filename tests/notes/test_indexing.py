"""Notes -> passages -> vectors in the database, by the regeneration job."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from rest_framework.test import APIClient

from jobs.models import BackgroundJob
from jobs.tasks import plan_job, run_batch
from notes import serving
from notes.embedding import encoder
from notes.indexing import embed_notes, save_embedded
from notes.models import Note, Passage
from scribes.management.commands.demo import psalm
from scribes.models import User


def regenerate(api: APIClient, **options: bool) -> BackgroundJob:
    """The job, accepted over HTTP and run here."""
    job_id = api.post("/semantic/regenerate-embeddings", options).json()["task_id"]
    return run(BackgroundJob.objects.get(pk=job_id))


def run(job: BackgroundJob | None, batches: int | None = None) -> BackgroundJob:
    """The job, planned and worked on here: all of its batches, or so many of those that wait."""
    assert job
    plan_job(str(job.pk))
    for batch_id in job.batches.pending().values_list("pk", flat=True)[:batches]:
        run_batch(batch_id)
    job.refresh_from_db()
    return job


@pytest.fixture
def write(alice: User) -> Callable[..., Note]:
    def make(content: str, user: User = alice, **fields) -> Note:
        return Note.objects.create(user=user, content=content, **({"title": "A note"} | fields))

    return make


def test_a_long_note_has_passages_for_all_of_its_text(api: APIClient, write):
    note = write(psalm(119)["content"])
    assert regenerate(api).status == "completed"
    passages = list(Passage.objects.filter(note=note).order_by("ordinal"))
    assert len(passages) > 10
    assert [passage.ordinal for passage in passages] == list(range(len(passages)))
    covered = {n for p in passages for n in range(p.char_start, p.char_end)}
    missing = "".join(note.content[n] for n in range(len(note.content)) if n not in covered)
    assert missing.strip() == ""
    for passage in passages:
        text = note.content[passage.char_start : passage.char_end]
        assert len(encoder().tokenize(text)) + 2 <= encoder().max_tokens


def test_references_and_tags_are_embedded_with_the_text(api: APIClient, write):
    write("He came by night.", scripture_refs="Jn 3", tags=["birth", "spirit"])
    regenerate(api)
    expected = encoder().embed(["He came by night.\nJn 3 birth spirit"])[0]
    (stored,) = Passage.objects.values_list("vector", flat=True)
    assert np.dot(expected, stored) == pytest.approx(1, abs=1e-4)


def test_overlong_keywords_leave_room_for_the_text(api: APIClient, write):
    write("word " * 1000, tags=["a rather long tag to fill the line"] * 50)
    assert regenerate(api).processed_items == 1
    assert 8 <= Passage.objects.count() <= 10


def test_blank_notes_are_skipped_not_failed(api: APIClient, write):
    write("")
    write(" \n\t ")
    write("Something.")
    job = regenerate(api)
    assert (job.processed_items, job.skipped_items, job.failed_items) == (1, 2, 0)
    assert job.result_data == {
        "model": "all-MiniLM-L6-v2",
        "embedded_notes": 1,
        "skipped_notes": 2,
        "failed_notes": 0,
        "switched": False,
    }


def test_running_again_replaces_and_does_not_add(api: APIClient, write):
    note = write("One. " * 400)
    regenerate(api)
    before = Passage.objects.count()
    note.content = "Only this."
    note.save()
    regenerate(api)
    assert (before > 1, Passage.objects.count()) == (True, 1)


def test_only_ones_own_notes_are_embedded(api: APIClient, write, bob: User):
    write("Mine.")
    write("His.", user=bob)
    assert regenerate(api).total_items == 1
    assert not Passage.objects.filter(user=bob).exists()


def test_notes_edited_or_deleted_meanwhile_keep_what_they_have(write):
    """Between reading and writing: old vectors must not meet a newer text."""
    edited, deleted, kept = write("Old text."), write("Gone soon."), write("The same.")
    model = serving.default()
    embedded = embed_notes([edited, deleted, kept], model)
    Note.objects.get(pk=deleted.pk).delete()
    changed = Note.objects.get(pk=edited.pk)
    changed.content = "New text."
    changed.save()
    assert save_embedded(embedded, model) == 1
    assert list(Passage.objects.values_list("note_id", flat=True)) == [kept.pk]


def test_a_second_post_answers_with_the_same_job(api: APIClient, write):
    write("Something.")
    first = api.post("/semantic/regenerate-embeddings")
    second = api.post("/semantic/regenerate-embeddings")
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json()["task_id"] == second.json()["task_id"]
    assert "already" in second.json()["message"]


def test_nobody_is_401(db: None):
    assert APIClient().post("/semantic/regenerate-embeddings").status_code == 401


def test_get_is_405(api: APIClient):
    assert api.get("/semantic/regenerate-embeddings").status_code == 405
