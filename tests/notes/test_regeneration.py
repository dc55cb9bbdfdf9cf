"""Notes -> passages -> vectors in the database, with the regeneration job."""

from __future__ import annotations

import numpy as np
import pytest
from rest_framework.test import APIClient

from notes.embeddings.encoder import encoder
from notes.embeddings.pipeline import embed_notes
from notes.embeddings.rollout import default_model
from notes.embeddings.store import save_embedded
from notes.models import Note, Passage
from scribes.models import User
from tests.helpers.factories import make_note
from tests.helpers.jobs import item_counts, regenerate
from tests.helpers.samples import psalm


def test_regeneration_covers_the_whole_text(api: APIClient, alice: User):
    note = make_note(alice, **psalm(119))
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


def test_passages_are_embedded_with_references_and_tags(api: APIClient, alice: User):
    note = {"content": "He came by night.", "scripture_refs": "Jn 3"}
    make_note(alice, tags=["birth", "spirit"], **note)
    regenerate(api)
    expected = encoder().embed(["He came by night.\nJn 3 birth spirit"])[0]
    (stored,) = Passage.objects.values_list("vector", flat=True)
    assert np.dot(expected, stored) == pytest.approx(1, abs=1e-4)


def test_long_keywords_leave_room_for_the_text(api: APIClient, alice: User):
    tags = ["a rather long tag to fill the line"] * 50
    make_note(alice, content="word " * 1000, tags=tags)
    assert regenerate(api).processed_items == 1
    assert 8 <= Passage.objects.count() <= 10


def test_regeneration_skips_blank_notes(api: APIClient, alice: User):
    for content in ("", " \n\t ", "Something."):
        make_note(alice, content=content)
    job = regenerate(api)
    assert item_counts(job) == (1, 0, 2)
    assert job.result_data == {
        "model": "all-MiniLM-L6-v2",
        "embedded_notes": 1,
        "skipped_notes": 2,
        "failed_notes": 0,
        "switched": False,
    }


def test_regeneration_replaces_passages(api: APIClient, alice: User):
    note = make_note(alice, content="One. " * 400)
    regenerate(api)
    before = Passage.objects.count()
    note.content = "Only this."
    note.save()
    regenerate(api)
    assert (before > 1, Passage.objects.count()) == (True, 1)


def test_regeneration_embeds_own_notes_only(api: APIClient, alice: User, bob: User):
    make_note(alice)
    make_note(bob)
    assert regenerate(api).total_items == 1
    assert not Passage.objects.filter(user=bob).exists()


def test_save_ignores_notes_edited_or_deleted_meanwhile(alice: User):
    """Vectors of an old text must not be stored for a newer one."""
    edited, deleted, kept = (make_note(alice, title) for title in ("Edited", "Deleted", "Kept"))
    model = default_model()
    embedded = embed_notes([edited, deleted, kept], model)
    Note.objects.get(pk=deleted.pk).delete()
    changed = Note.objects.get(pk=edited.pk)
    changed.content = "New text."
    changed.save()
    assert save_embedded(embedded, model) == 1
    assert list(Passage.objects.values_list("note_id", flat=True)) == [kept.pk]


def test_second_request_answers_with_the_active_job(api: APIClient, alice: User):
    make_note(alice)
    first = api.post("/semantic/regenerate-embeddings")
    second = api.post("/semantic/regenerate-embeddings")
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json()["task_id"] == second.json()["task_id"]
    assert "already" in second.json()["message"]


def test_request_without_user_is_401(db: None):
    assert APIClient().post("/semantic/regenerate-embeddings").status_code == 401


def test_get_is_405(api: APIClient):
    assert api.get("/semantic/regenerate-embeddings").status_code == 405
