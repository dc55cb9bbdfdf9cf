"""Switching to a model of another dimension, without a gap, and back."""

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
from notes.embeddings.encoder import Encoder, ModelUnavailable, encoder
from notes.embeddings.pending import RETRY_SECONDS
from notes.embeddings.pipeline import embed_notes
from notes.embeddings.regeneration import EmbeddingRegeneration
from notes.embeddings.rollout import active_model
from notes.embeddings.saved_notes import claim_slice
from notes.embeddings.store import save_embedded
from notes.models import EmbeddingModel, Note, Passage, UserEmbeddingModel
from notes.pending_embeddings import PendingEmbedding
from notes.tasks import embed_pending_notes
from scribes.models import User
from tests.helpers.factories import make_note
from tests.helpers.jobs import regenerate, run_job
from tests.helpers.notes import embed_note
from tests.helpers.samples import psalm

PSALMS = (1, 23, 133)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of an untrained model with 32 dimensions and one layer."""
    import torch
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("models") / "tiny"
    shutil.copytree(encoder().path, folder)
    torch.manual_seed(7)
    config = BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    BertModel(config).save_pretrained(folder)
    pooling = folder / "1_Pooling" / "config.json"
    changed = json.loads(pooling.read_text()) | {"word_embedding_dimension": 32}
    pooling.write_text(json.dumps(changed))
    return str(folder)


@pytest.fixture
def notes(api: APIClient, alice: User) -> list[Note]:
    notes = [make_note(alice, **psalm(n)) for n in PSALMS]
    regenerate(api)
    return notes


def status(api: APIClient) -> tuple[str, int, float]:
    answer = api.get("/semantic/status").json()
    return answer["model"], answer["dimension"], answer["coverage_percent"]


def start_switch(folder: str) -> BackgroundJob:
    call_command("regenerate_embeddings", "--all-users", "--no-wait", model=folder)
    return BackgroundJob.objects.active().get()


def found(api: APIClient) -> list[str]:
    answer = api.post("/semantic/search", {"query": "brothers at peace", "mode": "semantic"})
    return [result["note"]["title"] for result in answer.json()["results"]]


def test_searches_use_the_old_model_until_all_notes_are_done(
    api: APIClient, notes: list[Note], tiny: str, settings
):
    settings.JOB_BATCH_SIZE = 1
    job = start_switch(tiny)
    run_job(job, batches=2)
    assert status(api) == ("all-MiniLM-L6-v2", 384, 100.0)
    assert found(api)[0] == "Psalm 133"
    run_job(job)
    assert status(api) == ("tiny", 32, 100.0)
    assert len(found(api)) == 3
    assert api.get(f"/jobs/{job.pk}").json()["result_data"]["switched"] is True


def test_notes_edited_meanwhile_are_embedded_for_both(
    api: APIClient, notes: list[Note], tiny: str, settings
):
    settings.JOB_BATCH_SIZE = 1
    job = start_switch(tiny)
    run_job(job, batches=1)
    api.patch(f"/notes/{notes[0].pk}", {"content": "Brothers who live together in peace."})
    embed_note(notes[0].pk)
    assert found(api)[0] == "Psalm 1"
    assert status(api) == ("all-MiniLM-L6-v2", 384, 100.0)
    run_job(job)
    assert status(api) == ("tiny", 32, 100.0)


def test_switch_resumes_for_notes_that_became_stale(
    api: APIClient, notes: list[Note], tiny: str, settings
):
    settings.JOB_BATCH_SIZE = 1
    job = start_switch(tiny)
    run_job(job, batches=2)
    api.patch(f"/notes/{notes[0].pk}", {"content": "New, and its process died."})
    assert claim_slice() == [notes[0].pk]
    run_job(job)
    assert status(api)[:2] == ("all-MiniLM-L6-v2", 384)
    PendingEmbedding.objects.all().delete()
    embed_pending_notes()
    run_job(BackgroundJob.objects.active().get())
    assert status(api) == ("tiny", 32, 100.0)


def test_roll_back_and_drop_old(api: APIClient, notes: list[Note], tiny: str):
    run_job(start_switch(tiny))
    api.patch(f"/notes/{notes[0].pk}", {"content": "Edited after the change."})
    embed_note(notes[0].pk)
    call_command("switch_embeddings", "--user", "alice@example.com", "--roll-back")
    assert status(api) == ("all-MiniLM-L6-v2", 384, 66.7)
    assert PendingEmbedding.objects.get().note_id == notes[0].pk
    embed_note(notes[0].pk)
    assert status(api) == ("all-MiniLM-L6-v2", 384, 100.0)
    call_command("switch_embeddings", "--all-users", "--drop-old")
    assert not Passage.objects.filter(model__version__startswith="tiny@").exists()
    call_command("switch_embeddings", "--all-users", "--roll-back")
    assert status(api) == ("all-MiniLM-L6-v2", 384, 100.0)


def test_new_users_get_the_default_model(
    api: APIClient, notes: list[Note], bob: User, tiny: str, settings
):
    settings.EMBEDDING_MODEL = tiny
    embed_note(make_note(bob, **psalm(1)).pk)
    models = Passage.objects.filter(user=bob).values_list("model__version", flat=True)
    assert {version.split("@")[0] for version in models} == {"tiny"}
    assert status(api) == ("all-MiniLM-L6-v2", 384, 100.0)
    regenerate(api)
    assert status(api) == ("all-MiniLM-L6-v2", 384, 100.0)


def test_model_is_unavailable_when_its_weights_changed(
    api: APIClient, notes: list[Note], tiny: str, tmp_path: Path
):
    moved = tmp_path / "tiny"
    shutil.copytree(tiny, moved)
    run_job(start_switch(str(moved)))
    shutil.copy(encoder().path / "model.safetensors", moved / "model.safetensors")
    encoder.cache_clear()
    answer = api.post("/semantic/search", {"query": "peace"}).json()
    assert answer["degraded"] == ["semantic"]


def test_command_refuses_a_missing_model(alice: User, tmp_path: Path):
    with pytest.raises(CommandError, match="No embedding model at"):
        call_command("regenerate_embeddings", "--all-users", model=str(tmp_path))


def test_encoder_refuses_too_many_dimensions(tiny: str, tmp_path: Path):
    folder = tmp_path / "huge"
    shutil.copytree(tiny, folder)
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"hidden_size": 4096}))
    with pytest.raises(ModelUnavailable, match="4096 dimensions are more than 1300"):
        Encoder(str(folder)).embed(["a"])


def test_vectors_of_the_old_model_are_not_saved_after_switch(
    api: APIClient, alice: User, notes: list[Note], tiny: str
):
    old = active_model(alice)
    computed = embed_notes(notes, old)
    run_job(start_switch(tiny))
    assert save_embedded(computed, old) == 0
    embed_pending_notes()
    assert status(api) == ("tiny", 32, 100.0)


def test_note_stays_pending_until_it_has_both_vectors(
    api: APIClient, alice: User, notes: list[Note], tiny: str, settings
):
    settings.JOB_BATCH_SIZE = 1
    job = start_switch(tiny)
    run_job(job, batches=0)
    api.patch(f"/notes/{notes[0].pk}", {"content": "Brothers who live together in peace."})
    run_job(job, batches=2)
    embed_note(notes[0].pk)
    assert found(api)[0] == "Psalm 1"
    assert not PendingEmbedding.objects.exists()


def test_cancelling_the_job_cancels_the_switch(
    api: APIClient, notes: list[Note], tiny: str, settings
):
    settings.JOB_BATCH_SIZE = 1
    job = start_switch(tiny)
    run_job(job, batches=1)
    assert api.post(f"/jobs/{job.pk}/cancel").status_code == 202
    embed_pending_notes()
    assert not BackgroundJob.objects.active().exists()
    assert status(api) == ("all-MiniLM-L6-v2", 384, 100.0)


def test_job_without_notes_completes_the_switch(api: APIClient, notes: list[Note], tiny: str):
    run_job(start_switch(tiny))
    call_command("switch_embeddings", "--all-users", "--roll-back")
    call_command("regenerate_embeddings", "--all-users", "--no-wait", "--stale", model=tiny)
    assert run_job(BackgroundJob.objects.active().get()).total_items == 0
    assert status(api) == ("tiny", 32, 100.0)


def test_note_that_only_python_calls_blank_is_no_obstacle(
    api: APIClient, alice: User, notes: list[Note], tiny: str
):
    make_note(alice, "Blank", content="\x1c")
    run_job(start_switch(tiny))
    assert status(api) == ("tiny", 32, 100.0)


def test_vectors_are_normalized_when_the_model_does_not(tiny: str, tmp_path: Path):
    folder = tmp_path / "raw"
    shutil.copytree(tiny, folder)
    modules = folder / "modules.json"
    modules.write_text(json.dumps(json.loads(modules.read_text())[:2]))
    raw, normalized = Encoder(str(folder)), Encoder(tiny)
    assert raw.version != normalized.version
    assert raw.embed(["In the beginning"]) == pytest.approx(
        normalized.embed(["In the beginning"]), abs=0.01
    )


def test_search_falls_back_to_keywords_on_damaged_weights(
    api: APIClient, notes: list[Note], tiny: str, tmp_path: Path
):
    folder = tmp_path / "damaged"
    shutil.copytree(tiny, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    start_switch(str(folder))
    UserEmbeddingModel.objects.update(active_model=EmbeddingModel.objects.latest("pk"))
    for _ in range(2):
        answer = api.post("/semantic/search", {"query": "brethren"}).json()
        assert answer["degraded"] == ["semantic"]
        assert answer["results"][0]["note"]["title"] == "Psalm 133"


def test_switch_waits_for_a_model_that_cannot_be_loaded(
    api: APIClient, notes: list[Note], tiny: str, tmp_path: Path
):
    folder = tmp_path / "tiny"
    shutil.copytree(tiny, folder)
    job = start_switch(str(folder))
    shutil.rmtree(folder)
    encoder.cache_clear()
    assert run_job(job).failed_items == len(PSALMS)
    embed_pending_notes()
    assert not BackgroundJob.objects.active().exists()
    assert status(api) == ("all-MiniLM-L6-v2", 384, 100.0)
    assert found(api)[0] == "Psalm 133"
    shutil.copytree(tiny, folder)
    long_ago = Now() - timedelta(seconds=RETRY_SECONDS + 1)
    PendingEmbedding.objects.update(since=long_ago, enqueued_at=long_ago)
    embed_pending_notes()
    run_job(BackgroundJob.objects.active().get())
    assert status(api) == ("tiny", 32, 100.0)


def test_vectors_are_saved_under_the_model_that_made_them(
    api: APIClient, alice: User, notes: list[Note], tiny: str
):
    """The user switches while a job that names no model is between reading and writing."""
    job_type = EmbeddingRegeneration()
    job = BackgroundJob(user=alice, job_type=job_type.name, parameters={})
    computed = job_type.compute(job, [note.pk for note in notes], lambda: None)
    run_job(start_switch(tiny))
    assert job_type.save(job, computed).items == 0
    assert len(found(api)) == 3
