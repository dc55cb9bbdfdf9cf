"""Saved notes are embedded in slices, users in turn, and by whoever is free."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from django.db import transaction
from rest_framework.test import APIClient

from jobs.models import BackgroundJob, JobBatch
from jobs.runner import enqueue, run_claimed
from jobs.tasks import plan_job
from notes.embeddings import pipeline, saved_notes
from notes.embeddings.encoder import Encoder
from notes.embeddings.saved_notes import SLICE_BYTES, SLICE_NOTES, claim_slice, embed_slice
from notes.models import Note, Passage
from notes.pending_embeddings import SHORT_NOTE_BYTES, PendingEmbedding
from notes.tasks import embed_pending_notes, embed_saved_notes
from scribes.messaging import broker
from scribes.models import User
from tests.helpers.factories import make_note
from tests.helpers.jobs import regenerate, run_batch, run_job
from tests.helpers.notes import record_embedded_texts
from tests.helpers.plans import plans_of
from tests.helpers.processes import run_concurrently
from tests.helpers.samples import psalm
from tests.helpers.servers import delete_queues

SHORT = "Beside the still waters."


def make_notes(user: User, count: int, content: str = SHORT) -> list[int]:
    return [make_note(user, f"Note {n}", content=f"{n} {content}").pk for n in range(count)]


def claim_all() -> list[list[int]]:
    """The slices in which all waiting notes are claimed."""
    slices = []
    while note_ids := claim_slice():
        slices.append(note_ids)
    return slices


# --- Slices ---------------------------------------------------------------------------------


def test_slice_is_limited_by_notes(alice: User):
    ids = make_notes(alice, SLICE_NOTES + 3)
    assert claim_all() == [ids[:SLICE_NOTES], ids[SLICE_NOTES:]]


def test_slice_is_limited_by_text(alice: User):
    ids = make_notes(alice, 5, "x" * (SLICE_BYTES // 2 - 10))
    assert claim_all() == [ids[:2], ids[2:4], ids[4:]]


def test_slice_has_at_least_one_note(alice: User):
    ids = make_notes(alice, 2, "x" * (SHORT_NOTE_BYTES - 10))
    assert claim_all() == [ids[:1], ids[1:]]


def test_slice_counts_bytes_and_not_characters(alice: User):
    ids = make_notes(alice, 2, "神" * (SLICE_BYTES // 4))
    assert claim_all() == [ids[:1], ids[1:]]


@pytest.mark.django_db(transaction=True)
def test_processes_claim_different_notes(alice: User, bob: User):
    ids = make_notes(alice, 40) + make_notes(bob, 40)
    claimed = run_concurrently(4, lambda _: claim_all())
    assert sorted(pk for slices in claimed for part in slices for pk in part) == sorted(ids)


def test_edited_note_is_claimed_again(alice: User):
    (note_id,) = make_notes(alice, 1)
    assert claim_all() == [[note_id]]
    note = Note.objects.get(pk=note_id)
    note.content = "Edited while a process embeds it."
    note.save()
    assert claim_all() == [[note_id]]


# --- Turns ----------------------------------------------------------------------------------


def test_note_of_another_user_comes_next(alice: User, bob: User):
    first, *_ = make_notes(alice, 200)
    assert claim_slice()[0] == first
    (own,) = make_notes(bob, 1)
    assert claim_slice() == [own]


def test_users_with_many_notes_take_turns(alice: User, bob: User):
    make_notes(alice, 100)
    claim_slice()
    make_notes(bob, 100)
    owners = [Note.objects.get(pk=part[0]).user for part in claim_all()]
    both = owners[: 2 * min(map(owners.count, (alice, bob)))]
    longest = max(abs(both[:n].count(alice) - both[:n].count(bob)) for n in range(len(both)))
    assert longest <= 2


def test_newcomers_do_not_starve_a_user_with_many_notes(alice: User):
    make_notes(alice, 100)
    claim_slice()
    served = []
    for n in range(20):
        newcomer = User.objects.create_user(f"newcomer{n}@example.com")
        make_notes(newcomer, 1)
        served.append(Note.objects.get(pk=claim_slice()[0]).user)
    assert alice in served


def test_turn_is_found_by_the_index(alice: User):
    """Claiming reads the next notes and not all that wait."""
    make_notes(alice, 500)
    first, own = plans_of(claim_slice, "SELECT")[:2]
    assert read_rows(first) == 1
    assert read_rows(own) == SLICE_NOTES


def read_rows(nodes: list[dict[str, Any]]) -> int:
    (scan,) = [node for node in nodes if "Scan" in node["Node Type"]]
    assert "Index" in scan["Node Type"]
    return int(scan["Actual Rows"])


# --- Messages -------------------------------------------------------------------------------


def test_user_has_one_message_however_many_notes(api: APIClient, run_on_commit):
    delete_queues()
    for n in range(5):
        with run_on_commit():
            api.post("/notes", {"title": f"Note {n}", "content": SHORT})
    assert broker.queue_length("notes") == 1


def test_message_is_sent_again_once_notes_are_claimed(api: APIClient, run_on_commit):
    delete_queues()
    for _ in range(2):
        with run_on_commit():
            api.post("/notes", {"title": "Rest", "content": SHORT})
        claim_slice()
    assert broker.queue_length("notes") == 2


@pytest.mark.parametrize("queued", [0, 1])
def test_help_is_requested_unless_it_is_coming(alice: User, run_on_commit, queued: int):
    delete_queues()
    make_notes(alice, 1)
    for _ in range(queued):
        broker.send("notes.tasks.embed_saved_notes", (), "notes", "Embed saved notes: note 1")
    with run_on_commit():
        saved_notes.request_help()
    assert broker.queue_length("notes") == 1


def test_one_message_embeds_the_notes_of_all_users(alice: User, bob: User, monkeypatch):
    monkeypatch.setattr(saved_notes, "RUN_SECONDS", 600)
    make_notes(alice, 40)
    make_notes(bob, 1)
    embed_saved_notes()
    assert not PendingEmbedding.objects.exists()
    assert Passage.objects.filter(current=True).values("note").distinct().count() == 41


# --- Failures -------------------------------------------------------------------------------


@pytest.fixture
def unlucky_text(monkeypatch) -> str:
    """Texts with this word cannot be embedded."""
    embed = Encoder.embed

    def fail(self: Encoder, texts: list[str], *args: Any) -> Any:
        if any("unlucky" in text for text in texts):
            raise ArithmeticError("an unlucky text")
        return embed(self, texts, *args)

    monkeypatch.setattr(Encoder, "embed", fail)
    return "unlucky"


def test_bad_note_fails_alone(alice: User, unlucky_text: str):
    ids = make_notes(alice, 5)
    bad = make_note(alice, content=unlucky_text)
    assert embed_slice()
    assert set(Passage.objects.values_list("note", flat=True)) == set(ids)
    assert list(PendingEmbedding.objects.values_list("note", flat=True)) == [bad.pk]
    assert claim_slice() == []


# --- Long notes and jobs --------------------------------------------------------------------


def test_long_note_gets_a_job_at_once(api: APIClient, run_on_commit):
    delete_queues()
    text = "Be still. " * (SHORT_NOTE_BYTES // 10 + 1)
    with run_on_commit():
        note_id = api.post("/notes", {"title": "Long", "content": text}).json()["id"]
    assert claim_slice() == []
    assert broker.waiting_messages("control", 1) == [f"Look for pending embeddings: note {note_id}"]
    embed_pending_notes()
    assert run_job(BackgroundJob.objects.get()).processed_items == 1
    assert not PendingEmbedding.objects.exists()


def test_row_of_the_previous_version_gets_a_job(alice: User):
    """It has neither a user nor a turn."""
    make_notes(alice, 1)
    PendingEmbedding.objects.update(user=None, turn=None)
    embed_pending_notes()
    assert run_job(BackgroundJob.objects.get()).processed_items == 1


def test_job_lets_saved_notes_go_first(
    api: APIClient, alice: User, bob: User, monkeypatch, run_on_commit: Callable[[], Any]
):
    """After each group of passages it embeds some, whoever saved them."""
    monkeypatch.setattr(pipeline, "PASSAGES_PER_GROUP", 2)
    make_notes(alice, 10)
    while embed_slice():
        pass
    make_notes(bob, 3)
    embedded: list[set[int]] = []

    def record(*args: Any) -> None:
        embedded.append(set(Passage.objects.values_list("user", flat=True)))

    monkeypatch.setattr(Encoder, "embed", recording(Encoder.embed, record))
    job = regenerate(api)
    assert (job.total_items, job.processed_items) == (10, 10)
    assert bob.pk in embedded[2], "before the second group of the job"
    assert not PendingEmbedding.objects.exists()


def recording(call: Callable[..., Any], record: Callable[..., None]) -> Callable[..., Any]:
    def recorded(*args: Any) -> Any:
        record(*args)
        return call(*args)

    return recorded


@pytest.mark.django_db(transaction=True)
def test_notes_saved_while_others_are_claimed_are_not_forgotten(alice: User):
    """Every note is embedded without the periodic task, however saving and claiming interleave."""
    delete_queues()

    def work(number: int) -> None:
        if number == 0:
            for _ in range(30):
                with transaction.atomic():
                    make_note(alice)
            return
        for _ in range(60):
            while embed_slice():
                saved_notes.request_help()

    run_concurrently(3, work)
    if PendingEmbedding.objects.in_turn().exists():
        assert broker.queue_length("notes") > 0


def test_very_long_note_is_embedded_in_several_turns(api: APIClient, alice: User, monkeypatch):
    monkeypatch.setattr(pipeline, "MAX_PASSAGES", 5)
    note = make_note(alice, **psalm(119))
    texts = record_embedded_texts(monkeypatch)
    job, _ = enqueue(alice, "embedding_regeneration", {})
    plan_job(str(job.pk))
    turns = 0
    while job.batches.pending().exists():
        (batch,) = job.batches.all()
        assert (batch.attempts, Passage.objects.filter(current=True).exists()) == (0, False)
        run_batch(batch.pk)
        turns += 1
    passages = Passage.objects.filter(note=note, current=True)
    assert turns == math.ceil(passages.count() / 5) > 2
    assert len(texts) == passages.count() == Passage.objects.count()
    job.refresh_from_db()
    assert (job.status, job.processed_items) == ("completed", 1)


def test_turns_of_two_long_notes_alternate(alice: User, bob: User, monkeypatch):
    monkeypatch.setattr(pipeline, "MAX_PASSAGES", 5)
    jobs = []
    for user in (alice, bob):
        make_note(user, **psalm(119))
        jobs.append(enqueue(user, "embedding_regeneration", {})[0])
        plan_job(str(jobs[-1].pk))
    owners = []
    while batch := JobBatch.claim_next(["embedding_regeneration"], "a message"):
        owners.append(batch.job.user)
        run_claimed(batch)
    assert owners == [alice, bob] * (len(owners) // 2)
    assert set(BackgroundJob.objects.values_list("status", flat=True)) == {"completed"}


def test_edit_between_the_turns_of_a_long_note(api: APIClient, alice: User, monkeypatch):
    monkeypatch.setattr(pipeline, "MAX_PASSAGES", 5)
    note = make_note(alice, **psalm(119))
    job, _ = enqueue(alice, "embedding_update", {"item_ids": [note.pk]})
    plan_job(str(job.pk))
    run_batch(job.batches.get().pk)
    api.patch(f"/notes/{note.pk}", {"content": "Now it is short."})
    run_batch(job.batches.get().pk)
    (passage,) = Passage.objects.all()
    assert (passage.current, passage.ordinal, passage.char_end) == (True, 0, 16)
