"""A saved note is found as it is now, whatever happens to messages and processes."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.management import call_command
from django.db import DatabaseError, transaction
from django.db.models.functions import Now
from rest_framework.test import APIClient

from jobs.models import BackgroundJob
from notes.indexing import DUE_AGAIN_SECONDS, DUE_SECONDS, make_due
from notes.models import EmbeddingDue, Note, Passage
from notes.tasks import embed_due_notes, embed_note
from scribes.management.commands.demo import psalm
from scribes.models import User
from tests.conftest import client_of
from tests.notes.test_indexing import regenerate, run
from tests.processes import at_once


def by_meaning(api: APIClient, query: str) -> list[str]:
    answer = api.post("/semantic/search", {"query": query, "mode": "meaning"})
    return [result["note"]["title"] for result in answer.json()["results"]]


@pytest.fixture
def note(alice: User) -> Note:
    return Note.objects.create(user=alice, **psalm(23))


def test_an_edited_note_is_not_found_by_what_it_said(api: APIClient, note: Note):
    embed_note(note.pk)
    assert by_meaning(api, "shepherd") == ["Psalm 23"]
    api.patch(f"/notes/{note.pk}", {"content": "Something else."})
    assert by_meaning(api, "shepherd") == []


def test_a_change_of_title_leaves_the_vectors_alone(api: APIClient, note: Note):
    embed_note(note.pk)
    before = list(Passage.objects.values_list("pk", "current"))
    api.patch(f"/notes/{note.pk}", {"title": "The Shepherd", "preacher": "David"})
    assert list(Passage.objects.values_list("pk", "current")) == before
    assert not EmbeddingDue.objects.exists()


def test_only_the_passages_that_changed_are_embedded_again(alice: User, monkeypatch):
    note = Note.objects.create(user=alice, **psalm(119))
    embed_note(note.pk)
    before = set(Passage.objects.values_list("text_hash", flat=True))
    note.content += "\n\nAnd one line more."
    note.save()
    texts = record_embedded_texts(monkeypatch)
    embed_note(note.pk)
    assert len(before) > 10
    assert 1 <= len(texts) <= 2
    assert "one line more" in texts[-1]
    assert Passage.objects.filter(current=True).count() >= len(before)
    assert not Passage.objects.filter(current=False).exists()


def record_embedded_texts(monkeypatch) -> list[str]:
    """What the model is asked to embed from here on."""
    from notes.embedding import Encoder

    texts: list[str] = []
    embed = Encoder.embed

    def recording(self, new, *args):
        texts.extend(new)
        return embed(self, new, *args)

    monkeypatch.setattr(Encoder, "embed", recording)
    return texts


def test_going_back_to_the_old_text_needs_no_model(alice: User, note: Note, monkeypatch):
    embed_note(note.pk)
    content, note.content = note.content, "For a moment."
    note.save()
    note.content = content
    note.save()
    texts = record_embedded_texts(monkeypatch)
    embed_note(note.pk)
    assert texts == []
    assert Passage.objects.filter(note=note, current=True).exists()


def test_messages_twice_or_for_nothing_are_harmless(alice: User, note: Note):
    embed_note(note.pk)
    before = list(Passage.objects.values_list("pk", flat=True))
    embed_note(note.pk)
    embed_note(10**12)
    assert list(Passage.objects.values_list("pk", flat=True)) == before


def test_a_note_made_blank_has_no_passages(api: APIClient, note: Note):
    embed_note(note.pk)
    api.patch(f"/notes/{note.pk}", {"content": " "})
    embed_note(note.pk)
    assert not Passage.objects.exists()
    assert not EmbeddingDue.objects.exists()


def overdue(seconds: int) -> None:
    long_ago = Now() - timedelta(seconds=seconds + 1)
    EmbeddingDue.objects.update(since=long_ago)
    EmbeddingDue.objects.exclude(handed_over_at=None).update(handed_over_at=long_ago)


def test_a_lost_message_is_made_good_by_a_job(api: APIClient, note: Note):
    embed_due_notes()
    assert not BackgroundJob.objects.exists()
    overdue(DUE_SECONDS)
    embed_due_notes()
    embed_due_notes()
    (job,) = BackgroundJob.objects.all()
    assert run(job).status == "completed"
    assert job.job_type == "embedding_update"
    assert by_meaning(api, "shepherd") == ["Psalm 23"]
    assert not EmbeddingDue.objects.exists()


@pytest.mark.usefixtures("no_model")
def test_a_note_that_fails_is_counted_and_tried_again_later(api: APIClient, note: Note, settings):
    overdue(DUE_SECONDS)
    embed_due_notes()
    job = run(BackgroundJob.objects.get())
    assert (job.status, job.failed_items) == ("completed", 1)
    settings.EMBEDDING_MODEL = ""
    status = api.get("/semantic/status").json()
    assert (status["failed"], status["missing"], status["coverage_percent"]) == (1, 0, 0.0)
    assert status["last_job"]["job_id"] == str(job.pk)
    embed_due_notes()
    assert BackgroundJob.objects.count() == 1
    overdue(DUE_AGAIN_SECONDS)
    embed_due_notes()
    assert run(BackgroundJob.objects.first()).processed_items == 1
    assert api.get("/semantic/status").json()["coverage_percent"] == 100.0


@pytest.fixture
def failed_note(api: APIClient, note: Note, no_model, settings) -> Note:
    """Its job is forgotten, as it is an hour later."""
    assert regenerate(api).failed_items == 1
    BackgroundJob.objects.all().delete()
    settings.EMBEDDING_MODEL = ""
    return note


def test_a_failure_outlives_its_job(api: APIClient, failed_note: Note):
    failed_note.title = "Not the text"
    failed_note.save()
    status = api.get("/semantic/status").json()
    assert (status["failed"], status["missing"], status["current"]) == (1, 0, 0)
    (failure,) = status["failures"]
    assert (failure["note_id"], failure["error_class"]) == (failed_note.pk, "ModelUnavailable")
    assert "No embedding model at" in failure["message"]
    call_command("regenerate_embeddings", "--all-users", "--failed", "--no-wait")
    job = run(BackgroundJob.objects.get())
    assert (job.total_items, job.processed_items) == (1, 1)
    status = api.get("/semantic/status").json()
    assert (status["failed"], status["current"], status["failures"]) == (0, 1, [])


def test_another_text_has_not_failed_yet(api: APIClient, failed_note: Note):
    api.patch(f"/notes/{failed_note.pk}", {"content": "Another text."})
    status = api.get("/semantic/status").json()
    assert (status["failed"], status["missing"]) == (0, 1)


def test_a_text_that_is_newer_than_the_job_has_not_failed(api: APIClient, note: Note, no_model):
    job_id = api.post("/semantic/regenerate-embeddings").json()["task_id"]
    api.patch(f"/notes/{note.pk}", {"content": "Edited since."})
    assert run(BackgroundJob.objects.get(pk=job_id)).failed_items == 1
    assert api.get("/semantic/status").json()["failed"] == 0


def test_regeneration_embeds_unchanged_texts_too(api: APIClient, note: Note, monkeypatch):
    embed_note(note.pk)
    texts = record_embedded_texts(monkeypatch)
    regenerate(api)
    assert len(texts) == Passage.objects.count()


def test_a_save_does_not_bring_a_deleted_note_back(api: APIClient, note: Note):
    api.delete(f"/notes/{note.pk}")
    with pytest.raises(DatabaseError):
        note.save()
    assert not Note.objects.exists()
    assert api.patch(f"/notes/{note.pk}", {"title": "Again"}).status_code == 404


@pytest.mark.django_db(transaction=True)
def test_changes_and_deletions_at_once_with_embedding(alice: User):
    """Whatever comes first: nobody waits for ever, nothing fails, nothing is lost."""
    notes = [Note.objects.create(user=alice, **psalm(n)) for n in (117, 133)]
    for note in notes:
        embed_note(note.pk)

    def disturb(number: int) -> set[int]:
        api = client_of(alice)
        if number == 0:
            return {embed_again(notes) for _ in range(10)}
        if number == 1:
            fields = [{"content": f"Text {turn}."} for turn in range(10)]
            return {api.patch(f"/notes/{notes[0].pk}", field).status_code for field in fields}
        if number == 2:
            tags = [{"tags": [f"tag {turn}"]} for turn in range(10)]
            return {api.patch(f"/notes/{notes[0].pk}", tag).status_code for tag in tags}
        return {api.delete(f"/notes/{notes[1].pk}").status_code}

    answers = at_once(4, disturb)
    assert answers[1:] == [{200}, {200}, {204}]
    note = Note.objects.get()
    assert (note.content, note.tags) == ("Text 9.", ["tag 9"])


def embed_again(notes: list[Note]) -> int:
    with transaction.atomic():
        present = Note.objects.select_for_update(no_key=True).order_by("pk")
        make_due(list(present))
    for note in notes:
        embed_note(note.pk)
    return 0
