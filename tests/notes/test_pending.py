"""A saved note is found by its current text, even if messages are lost or embedding fails."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.management import call_command
from django.db import DatabaseError, transaction
from django.db.models.functions import Now
from rest_framework.test import APIClient

from jobs.models import BackgroundJob
from notes.embeddings.pending import RETRY_SECONDS
from notes.embeddings.saved_notes import claim_slice
from notes.models import Note, Passage
from notes.pending_embeddings import PendingEmbedding
from notes.tasks import embed_pending_notes, embed_saved_notes
from scribes.messaging import broker
from scribes.models import User
from tests.helpers.factories import make_note
from tests.helpers.jobs import LONG_AGO, regenerate, run_job
from tests.helpers.notes import embed_note, record_embedded_texts
from tests.helpers.people import client_of
from tests.helpers.processes import run_concurrently
from tests.helpers.samples import psalm
from tests.helpers.servers import delete_queues


def semantic_matches(api: APIClient, query: str) -> list[str]:
    answer = api.post("/semantic/search", {"query": query, "mode": "semantic"})
    return [result["note"]["title"] for result in answer.json()["results"]]


@pytest.fixture
def note(alice: User) -> Note:
    return make_note(alice, **psalm(23))


def test_edited_note_is_not_found_by_its_old_text(api: APIClient, note: Note):
    embed_note(note.pk)
    assert semantic_matches(api, "shepherd") == ["Psalm 23"]
    api.patch(f"/notes/{note.pk}", {"content": "Something else."})
    assert semantic_matches(api, "shepherd") == []


def test_title_change_keeps_vectors(api: APIClient, note: Note):
    embed_note(note.pk)
    before = list(Passage.objects.values_list("pk", "current"))
    api.patch(f"/notes/{note.pk}", {"title": "The Shepherd", "preacher": "David"})
    assert list(Passage.objects.values_list("pk", "current")) == before
    assert not PendingEmbedding.objects.exists()


def test_only_changed_passages_are_embedded(alice: User, monkeypatch):
    note = make_note(alice, **psalm(119))
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


def test_restored_text_reuses_vectors(alice: User, note: Note, monkeypatch):
    embed_note(note.pk)
    content, note.content = note.content, "For a moment."
    note.save()
    note.content = content
    note.save()
    texts = record_embedded_texts(monkeypatch)
    embed_note(note.pk)
    assert texts == []
    assert Passage.objects.filter(note=note, current=True).exists()


def test_repeated_and_stray_messages_are_harmless(alice: User, note: Note):
    embed_note(note.pk)
    before = list(Passage.objects.values_list("pk", flat=True))
    embed_note(note.pk)
    embed_note(10**12)
    assert list(Passage.objects.values_list("pk", flat=True)) == before


def test_note_made_blank_has_no_passages(api: APIClient, note: Note):
    embed_note(note.pk)
    api.patch(f"/notes/{note.pk}", {"content": " "})
    embed_note(note.pk)
    assert not Passage.objects.exists()
    assert not PendingEmbedding.objects.exists()


def lose_processes() -> None:
    """The processes that have claimed notes died long ago."""
    while claim_slice():
        pass
    PendingEmbedding.objects.update(claimed_at=LONG_AGO)


def test_lost_message_is_published_again(api: APIClient, note: Note, run_on_commit):
    delete_queues()
    for _ in range(2):
        with run_on_commit():
            embed_pending_notes()
    assert broker.waiting_messages("notes", 2) == ["Embed saved notes: waiting notes"]
    embed_saved_notes()
    assert semantic_matches(api, "shepherd") == ["Psalm 23"]
    assert not BackgroundJob.objects.exists()


def test_note_that_lost_its_process_gets_a_job(api: APIClient, note: Note):
    assert claim_slice() == [note.pk]
    embed_pending_notes()
    assert not BackgroundJob.objects.exists()
    lose_processes()
    embed_pending_notes()
    embed_pending_notes()
    (job,) = BackgroundJob.objects.all()
    assert run_job(job).status == "completed"
    assert job.job_type == "embedding_update"
    assert semantic_matches(api, "shepherd") == ["Psalm 23"]
    assert not PendingEmbedding.objects.exists()


@pytest.mark.usefixtures("no_model")
def test_failed_note_is_counted_and_retried_later(api: APIClient, note: Note, settings):
    lose_processes()
    embed_pending_notes()
    job = run_job(BackgroundJob.objects.get())
    assert (job.status, job.failed_items) == ("completed", 1)
    settings.EMBEDDING_MODEL = ""
    status = api.get("/semantic/status").json()
    assert (status["failed"], status["missing"], status["coverage_percent"]) == (1, 0, 0.0)
    assert status["last_job"]["job_id"] == str(job.pk)
    embed_pending_notes()
    assert BackgroundJob.objects.count() == 1
    long_ago = Now() - timedelta(seconds=RETRY_SECONDS + 1)
    PendingEmbedding.objects.update(enqueued_at=long_ago)
    embed_pending_notes()
    assert run_job(BackgroundJob.objects.first()).processed_items == 1
    assert api.get("/semantic/status").json()["coverage_percent"] == 100.0


@pytest.fixture
def failed_note(api: APIClient, note: Note, no_model, settings) -> Note:
    """A note that failed in a job that was deleted since."""
    assert regenerate(api).failed_items == 1
    BackgroundJob.objects.all().delete()
    settings.EMBEDDING_MODEL = ""
    return note


def test_failure_outlives_its_job(api: APIClient, failed_note: Note):
    failed_note.title = "Not the text"
    failed_note.save()
    status = api.get("/semantic/status").json()
    assert (status["failed"], status["missing"], status["current"]) == (1, 0, 0)
    (failure,) = status["failures"]
    assert (failure["note_id"], failure["error_class"]) == (failed_note.pk, "ModelUnavailable")
    assert "No embedding model at" in failure["message"]
    call_command("regenerate_embeddings", "--all-users", "--failed", "--no-wait")
    job = run_job(BackgroundJob.objects.get())
    assert (job.total_items, job.processed_items) == (1, 1)
    status = api.get("/semantic/status").json()
    assert (status["failed"], status["current"], status["failures"]) == (0, 1, [])


def test_failure_is_cleared_when_the_text_changes(api: APIClient, failed_note: Note):
    api.patch(f"/notes/{failed_note.pk}", {"content": "Another text."})
    status = api.get("/semantic/status").json()
    assert (status["failed"], status["missing"]) == (0, 1)


def test_failure_is_not_recorded_for_a_newer_text(api: APIClient, note: Note, no_model):
    job_id = api.post("/semantic/regenerate-embeddings").json()["task_id"]
    api.patch(f"/notes/{note.pk}", {"content": "Edited since."})
    assert run_job(BackgroundJob.objects.get(pk=job_id)).failed_items == 1
    assert api.get("/semantic/status").json()["failed"] == 0


def test_regeneration_embeds_unchanged_texts(api: APIClient, note: Note, monkeypatch):
    embed_note(note.pk)
    texts = record_embedded_texts(monkeypatch)
    regenerate(api)
    assert len(texts) == Passage.objects.count()


def test_save_does_not_restore_a_deleted_note(api: APIClient, note: Note):
    api.delete(f"/notes/{note.pk}")
    with pytest.raises(DatabaseError):
        note.save()
    assert not Note.objects.exists()
    assert api.patch(f"/notes/{note.pk}", {"title": "Again"}).status_code == 404


@pytest.mark.django_db(transaction=True)
def test_concurrent_edits_deletions_and_embedding(alice: User):
    """In any order, there is no deadlock, no error and no lost update."""
    notes = [make_note(alice, **psalm(n)) for n in (117, 133)]
    for note in notes:
        embed_note(note.pk)

    def work(number: int) -> set[int]:
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

    answers = run_concurrently(4, work)
    assert answers[1:] == [{200}, {200}, {204}]
    note = Note.objects.get()
    assert (note.content, note.tags) == ("Text 9.", ["tag 9"])


def embed_again(notes: list[Note]) -> int:
    with transaction.atomic():
        present = Note.objects.select_for_update(no_key=True).order_by("pk")
        PendingEmbedding.objects.add_all(present)
    for note in notes:
        embed_note(note.pk)
    return 0
