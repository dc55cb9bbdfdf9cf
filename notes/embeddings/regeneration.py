"""The job types that embed many notes of one user in the background."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.db.models import Count, FloatField, Func, Sum, Value
from django.db.models.functions import Ceil, Length, Now

from jobs.estimate import items_per_second
from jobs.job_types import Renew, Saved, Unfinished
from jobs.models import BackgroundJob, ItemFailure
from notes.embeddings import rollout
from notes.embeddings.encoder import ModelUnavailable
from notes.embeddings.pipeline import Embedded, EmbeddedNote, PartlyEmbedded, embed_notes
from notes.embeddings.saved_notes import embed_newcomers
from notes.embeddings.store import keep_part, save_embedded
from notes.models import EmbeddingModel, Note, NoteQuerySet
from notes.pending_embeddings import PendingEmbedding
from scribes.models import User

# For English text in passages that end with sentences. Used for estimates only.
CHARACTERS_PER_PASSAGE = 400


class EmbeddingRegeneration:
    """Job type: embeds all notes of a user again. An item is a note.

    Newly saved notes go first: between groups of passages, a batch embeds those of users who had none
    waiting. A very long note is embedded in several turns.

    The parameter `model` is the version of the notes.models.EmbeddingModel to switch to; the default
    is the user's active model. Notes are skipped if they are blank, were deleted, or were edited
    between reading and writing.
    """

    name = "embedding_regeneration"
    display_name = "Embedding regeneration"
    item_label = "notes"
    queue = "embeddings"
    # In bytes of text: about a hundred ordinary notes, or some seconds of work.
    max_batch_weight = 100_000
    hints: Mapping[str, str] = {
        ModelUnavailable.__name__: (
            "The embedding model could not be loaded. Check EMBEDDING_MODEL, then retry."
        )
    }

    def plan(self, job: BackgroundJob) -> Iterable[tuple[int, int]]:
        notes = Note.objects.for_user(job.user)
        if "model" in job.parameters:
            rollout.start_rollout(job.user, _model(job.user, job.parameters))
        if job.parameters.get("only_stale"):
            notes = notes.stale(_model(job.user, job.parameters))
        return _with_weights(notes)

    def weigh(self, job: BackgroundJob, item_ids: Sequence[int]) -> Iterable[tuple[int, int]]:
        return _with_weights(Note.objects.for_user(job.user).filter(pk__in=item_ids))

    def compute(self, job: BackgroundJob, item_ids: Sequence[int], renew: Renew) -> Embedded:
        model = _model(job.user, job.parameters)
        return [(model, _embed(_notes(item_ids), model, renew))]

    def save(self, job: BackgroundJob, results: Embedded) -> Saved:
        """Save vectors under the model that computed them: the user's model may have changed."""
        return Saved(items=max(save_embedded(notes, model) for model, notes in results))

    def summarize(self, job: BackgroundJob) -> dict[str, Any]:
        _record_failures(job)
        return {
            "model": rollout.model_name(job.user, job.parameters.get("model")),
            "embedded_notes": job.processed_items,
            "skipped_notes": job.skipped_items,
            "failed_notes": job.failed_items,
            "switched": rollout.promote(job.user),
        }


class EmbeddingUpdate(EmbeddingRegeneration):
    """Job type: embeds pending notes whose message had no effect.

    It is separate from EmbeddingRegeneration, so that a user who asks for a regeneration is never
    given one of these jobs instead.
    """

    name = "embedding_update"
    display_name = "Embedding update"

    def compute(self, job: BackgroundJob, item_ids: Sequence[int], renew: Renew) -> Embedded:
        models, notes = rollout.target_models(job.user), _notes(item_ids)
        return [(model, _embed(notes, model, renew, reuse=True)) for model in models]


EMBEDDING_JOB_TYPES = (EmbeddingRegeneration.name, EmbeddingUpdate.name)


def _model(user: User, parameters: dict[str, Any]) -> EmbeddingModel:
    if version := parameters.get("model"):
        return EmbeddingModel.objects.get(version=version)
    return rollout.active_model(user)


def _notes(ids: Sequence[int]) -> list[Note]:
    return list(Note.objects.filter(pk__any_of=ids).order_by("pk"))


def _embed(
    notes: list[Note], model: EmbeddingModel, renew: Renew, *, reuse: bool = False
) -> list[EmbeddedNote]:
    """Raises Unfinished for a note that takes long: what is computed is kept for its next turn."""
    try:
        return embed_notes(notes, model, renew, reuse=reuse, pause=embed_newcomers)
    except PartlyEmbedded as partly:
        keep_part(partly.parts, model)
        raise Unfinished from None


def _with_weights(notes: NoteQuerySet) -> Iterable[tuple[int, int]]:
    return notes.order_by("pk").values_list("pk", Func("content", function="octet_length"))


def _record_failures(job: BackgroundJob) -> None:
    """Record the job's failures with the notes: the job itself is deleted before long.

    Leaves out notes that were edited after the job was created, and notes that are being edited: it
    is unknown yet whether their new text fails, too.
    """
    failures = {failure.item_id: failure for failure in job.failures.all()}
    failed = Note.objects.filter(pk__in=failures, updated_at__lte=job.created_at).only("user")
    locked = failed.select_for_update(no_key=True, skip_locked=True).order_by("pk")
    PendingEmbedding.objects.bulk_create(
        (_failed(note, failures[note.pk]) for note in locked),
        update_conflicts=True,
        unique_fields=["note"],
        update_fields=["enqueued_at", "error_class", "error"],
    )


def _failed(note: Note, failure: ItemFailure) -> PendingEmbedding:
    return PendingEmbedding(
        note=note,
        user_id=note.user_id,
        since=Now(),
        enqueued_at=Now(),
        error_class=failure.error_class,
        error=failure.message,
    )


def estimate(user: User, parameters: dict[str, Any]) -> dict[str, int | None]:
    """The notes, passages and seconds of a job with these parameters, at the speed of recent jobs.

    Passages and seconds are estimates; seconds are None before the first job. Raises
    ModelUnavailable.
    """
    notes = Note.objects.for_user(user).with_text()
    if "item_ids" in parameters:
        notes = notes.filter(pk__in=parameters["item_ids"])
    elif parameters.get("only_stale"):
        notes = notes.stale(_model(user, parameters))
    passages = Ceil(Length("content") / Value(CHARACTERS_PER_PASSAGE, FloatField()))
    total = notes.aggregate(notes=Count("pk"), passages=Sum(passages, default=0))
    speed = items_per_second(EmbeddingRegeneration.name)
    return {
        "notes": total["notes"],
        "passages": int(total["passages"]),
        "seconds": round(total["notes"] / speed) if speed else None,
    }
