"""From one model to another of another dimension: beside each other, over in one step, and back."""

from __future__ import annotations

import json
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db.models.functions import Now
from rest_framework.test import APIClient

from jobs.models import BackgroundJob
from notes import serving
from notes.embedding import Encoder, ModelUnavailable, encoder
from notes.indexing import (
    DUE_AGAIN_SECONDS,
    EmbeddingRegeneration,
    embed_notes,
    save_embedded,
)
from notes.models import EmbeddingDue, EmbeddingModel, Note, Passage, ServedModel
from notes.tasks import embed_due_notes, embed_note
from scribes.management.commands.demo import psalm
from scribes.models import User
from tests.notes.test_indexing import regenerate, run

PSALMS = (1, 23, 133)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a model of 32 dimensions and one layer, that knows nothing."""
    import torch
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("models") / "tiny"
    shutil.copytree(encoder().path, folder)
    torch.manual_seed(7)
    small = BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    BertModel(small).save_pretrained(folder)
    pooling = folder / "1_Pooling" / "config.json"
    changed = json.loads(pooling.read_text()) | {"word_embedding_dimension": 32}
    pooling.write_text(json.dumps(changed))
    return str(folder)


@pytest.fixture
def notes(api: APIClient, alice: User) -> list[Note]:
    notes = [Note.objects.create(user=alice, **psalm(n)) for n in PSALMS]
    regenerate(api)
    return notes


def status(api: APIClient) -> tuple[str, int, float]:
    answer = api.get("/semantic/status").json()
    return answer["model"], answer["dimension"], answer["coverage_percent"]


def start(tiny: str) -> BackgroundJob:
    call_command("regenerate_embeddings", "--all-users", "--no-wait", model=tiny)
    return BackgroundJob.objects.active().get()


def found(api: APIClient) -> list[str]:
    answer = api.post("/semantic/search", {"query": "brothers at peace", "mode": "meaning"})
    return [result["note"]["title"] for result in answer.json()["results"]]


def test_searches_use_the_old_model_until_the_new_set_is_complete(
    api: APIClient, notes: list[Note], tiny: str, settings
):
    settings.JOB_BATCH_SIZE = 1
    job = start(tiny)
    run(job, batches=2)
    assert status(api) == ("all-MiniLM-L6-v2", 384, 100.0)
    assert found(api)[0] == "Psalm 133"
    run(job)
    assert status(api) == ("tiny", 32, 100.0)
    assert len(found(api)) == 3
    assert api.get(f"/jobs/{job.pk}").json()["result_data"]["switched"] is True


def test_notes_edited_meanwhile_are_embedded_for_both(
    api: APIClient, notes: list[Note], tiny: str, settings
):
    settings.JOB_BATCH_SIZE = 1
    job = start(tiny)
    run(job, batches=1)
    api.patch(f"/notes/{notes[0].pk}", {"content": "Brothers who live together in peace."})
    embed_note(notes[0].pk)
    assert found(api)[0] == "Psalm 1"
    assert status(api) == ("all-MiniLM-L6-v2", 384, 100.0)
    run(job)
    assert status(api) == ("tiny", 32, 100.0)


def test_what_became_stale_at_the_last_moment_is_made_good(
    api: APIClient, notes: list[Note], tiny: str, settings
):
    settings.JOB_BATCH_SIZE = 1
    job = start(tiny)
    run(job, batches=2)
    api.patch(f"/notes/{notes[0].pk}", {"content": "New, and its message got lost."})
    run(job)
    assert status(api)[:2] == ("all-MiniLM-L6-v2", 384)
    EmbeddingDue.objects.all().delete()
    embed_due_notes()
    run(BackgroundJob.objects.active().get())
    assert status(api) == ("tiny", 32, 100.0)


def test_going_back_and_dropping(api: APIClient, notes: list[Note], tiny: str):
    run(start(tiny))
    api.patch(f"/notes/{notes[0].pk}", {"content": "Edited after the change."})
    embed_note(notes[0].pk)
    call_command("switch_embeddings", "--user", "alice@example.com", "--back")
    assert status(api) == ("all-MiniLM-L6-v2", 384, 66.7)
    assert EmbeddingDue.objects.get().note_id == notes[0].pk
    embed_note(notes[0].pk)
    assert status(api) == ("all-MiniLM-L6-v2", 384, 100.0)
    call_command("switch_embeddings", "--all-users", "--drop-old")
    assert not Passage.objects.filter(model__version__startswith="tiny@").exists()
    call_command("switch_embeddings", "--all-users", "--back")
    assert status(api) == ("all-MiniLM-L6-v2", 384, 100.0)


def test_a_new_users_notes_are_embedded_with_the_model_of_the_settings(
    api: APIClient, notes: list[Note], bob: User, tiny: str, settings
):
    settings.EMBEDDING_MODEL = tiny
    embed_note(Note.objects.create(user=bob, **psalm(1)).pk)
    models = Passage.objects.filter(user=bob).values_list("model__version", flat=True)
    assert {version.split("@")[0] for version in models} == {"tiny"}
    assert status(api) == ("all-MiniLM-L6-v2", 384, 100.0)
    regenerate(api)
    assert status(api) == ("all-MiniLM-L6-v2", 384, 100.0)


def test_other_weights_in_the_folder_are_not_mistaken_for_the_model(
    api: APIClient, notes: list[Note], tiny: str, tmp_path: Path
):
    moved = tmp_path / "tiny"
    shutil.copytree(tiny, moved)
    run(start(str(moved)))
    shutil.copy(encoder().path / "model.safetensors", moved / "model.safetensors")
    encoder.cache_clear()
    answer = api.post("/semantic/search", {"query": "peace"}).json()
    assert answer["degraded"] == ["meaning"]


def test_a_model_that_is_not_there_is_refused(alice: User, tmp_path: Path):
    with pytest.raises(CommandError, match="No embedding model at"):
        call_command("regenerate_embeddings", "--all-users", model=str(tmp_path))


def test_too_many_dimensions_are_refused(tiny: str, tmp_path: Path):
    folder = tmp_path / "huge"
    shutil.copytree(tiny, folder)
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"hidden_size": 4096}))
    with pytest.raises(ModelUnavailable, match="4096 dimensions are more than 1300"):
        Encoder(str(folder)).embed(["a"])


def test_what_was_computed_with_the_old_model_is_not_saved_after_the_switch(
    api: APIClient, alice: User, notes: list[Note], tiny: str
):
    old = serving.of(alice)
    computed = embed_notes(notes, old)
    run(start(tiny))
    assert save_embedded(computed, old) == 0
    embed_due_notes()
    assert status(api) == ("tiny", 32, 100.0)


def test_a_note_stays_due_until_it_has_vectors_of_both_models(
    api: APIClient, alice: User, notes: list[Note], tiny: str, settings
):
    settings.JOB_BATCH_SIZE = 1
    job = start(tiny)
    run(job, batches=0)
    api.patch(f"/notes/{notes[0].pk}", {"content": "Brothers who live together in peace."})
    run(job, batches=2)
    embed_note(notes[0].pk)
    assert found(api)[0] == "Psalm 1"
    assert not EmbeddingDue.objects.exists()


def test_cancelling_the_job_is_staying_with_the_model(
    api: APIClient, notes: list[Note], tiny: str, settings
):
    settings.JOB_BATCH_SIZE = 1
    job = start(tiny)
    run(job, batches=1)
    assert api.post(f"/jobs/{job.pk}/cancel").status_code == 202
    embed_due_notes()
    assert not BackgroundJob.objects.active().exists()
    assert status(api) == ("all-MiniLM-L6-v2", 384, 100.0)


def test_a_job_with_nothing_to_do_switches_too(api: APIClient, notes: list[Note], tiny: str):
    run(start(tiny))
    call_command("switch_embeddings", "--all-users", "--back")
    call_command("regenerate_embeddings", "--all-users", "--no-wait", "--stale", model=tiny)
    assert run(BackgroundJob.objects.active().get()).total_items == 0
    assert status(api) == ("tiny", 32, 100.0)


def test_white_space_that_python_alone_takes_for_blank_holds_nothing_up(
    api: APIClient, alice: User, notes: list[Note], tiny: str
):
    Note.objects.create(user=alice, title="Blank", content="\x1c")
    run(start(tiny))
    assert status(api) == ("tiny", 32, 100.0)


def test_a_model_that_does_not_normalise_is_normalised(tiny: str, tmp_path: Path):
    folder = tmp_path / "raw"
    shutil.copytree(tiny, folder)
    modules = folder / "modules.json"
    modules.write_text(json.dumps(json.loads(modules.read_text())[:2]))
    raw, tidy = Encoder(str(folder)), Encoder(tiny)
    assert raw.version != tidy.version
    assert raw.embed(["In the beginning"]) == pytest.approx(
        tidy.embed(["In the beginning"]), abs=0.01
    )


def test_damaged_weights_leave_the_search_by_words(
    api: APIClient, notes: list[Note], tiny: str, tmp_path: Path
):
    folder = tmp_path / "damaged"
    shutil.copytree(tiny, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    start(str(folder))
    ServedModel.objects.update(model=EmbeddingModel.objects.latest("pk"))
    for _ in range(2):
        answer = api.post("/semantic/search", {"query": "brethren"}).json()
        assert answer["degraded"] == ["meaning"]
        assert answer["results"][0]["note"]["title"] == "Psalm 133"


def test_nobody_goes_over_to_a_model_that_cannot_be_loaded(
    api: APIClient, notes: list[Note], tiny: str, tmp_path: Path
):
    folder = tmp_path / "tiny"
    shutil.copytree(tiny, folder)
    job = start(str(folder))
    shutil.rmtree(folder)
    encoder.cache_clear()
    assert run(job).failed_items == len(PSALMS)
    embed_due_notes()
    assert not BackgroundJob.objects.active().exists()
    assert status(api) == ("all-MiniLM-L6-v2", 384, 100.0)
    assert found(api)[0] == "Psalm 133"
    shutil.copytree(tiny, folder)
    long_ago = Now() - timedelta(seconds=DUE_AGAIN_SECONDS + 1)
    EmbeddingDue.objects.update(since=long_ago, handed_over_at=long_ago)
    embed_due_notes()
    run(BackgroundJob.objects.active().get())
    assert status(api) == ("tiny", 32, 100.0)


def test_vectors_are_saved_under_the_model_that_made_them(
    api: APIClient, alice: User, notes: list[Note], tiny: str
):
    """The user goes over while a job that names no model is between reading and writing."""
    job_type = EmbeddingRegeneration()
    job = BackgroundJob(user=alice, job_type=job_type.name, parameters={})
    computed = job_type.compute(job, [note.pk for note in notes], lambda: None)
    run(start(tiny))
    assert job_type.save(job, computed) == 0
    assert len(found(api)) == 3
