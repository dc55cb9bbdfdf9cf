"""Embeds notes whose text changed, and repeats what got lost on the way.

A saved note has a PendingEmbedding, and a message asks for it to be embedded at once. If the message
had no effect, a periodic task enqueues a job.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta

from django.db import transaction
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Now

from jobs.models import BackgroundJob
from jobs.runner import enqueue
from notes.embeddings.pipeline import embed_for_target_models
from notes.embeddings.regeneration import EmbeddingRegeneration, EmbeddingUpdate
from notes.embeddings.rollout import cancel_rollout, promote
from notes.embeddings.store import save_embedded
from notes.models import EmbeddingModel, Note, PendingEmbedding, UserEmbeddingModel
from scribes.models import User

# The message of a note that has been pending for this time is presumed lost.
MESSAGE_LOST_SECONDS = 60
# A note that is still pending this long after a job was enqueued for it gets another job.
RETRY_SECONDS = 3600
MAX_NOTES_PER_RUN = 10_000


def embed_pending_note(note_id: int) -> None:
    """Embed a note if it is pending. Passages that did not change keep their vectors."""
    pending = Note.objects.filter(pk=note_id, pending_embedding__isnull=False)
    note = pending.select_related("user").first()
    if note is None:
        return
    embedded = embed_for_target_models(note.user, [note])
    with transaction.atomic():
        for model, notes in embedded:
            save_embedded(notes, model)


def embed_pending_notes() -> None:
    """Enqueue jobs for notes and rollouts whose messages or jobs got lost."""
    enqueue_jobs_for_pending()
    resume_rollouts()


def enqueue_jobs_for_pending() -> None:
    """Enqueue jobs for the notes whose message was lost or failed, one job per user.

    A note that fails in the job, too, gets another job after RETRY_SECONDS.
    """
    by_user = _overdue_notes()
    for user in User.objects.filter(pk__in=by_user):
        note_ids = by_user[user.pk]
        with transaction.atomic():
            _, is_new = enqueue(user, EmbeddingUpdate.name, {"item_ids": note_ids})
            if is_new:
                PendingEmbedding.objects.filter(pk__in=note_ids).update(enqueued_at=Now())


def _overdue_notes() -> dict[int, list[int]]:
    """The oldest pending notes by user, except for users who have such a job already."""
    retry_before = Now() - timedelta(seconds=RETRY_SECONDS)
    is_waiting = Q(enqueued_at=None) | Q(enqueued_at__lt=retry_before)
    lost_before = Now() - timedelta(seconds=MESSAGE_LOST_SECONDS)
    overdue = PendingEmbedding.objects.filter(is_waiting, since__lt=lost_before)
    # Without this, one user with many notes would fill the limit and keep all others waiting.
    has_job = BackgroundJob.objects.active().filter(
        user=OuterRef("note__user"), job_type=EmbeddingUpdate.name
    )
    oldest = overdue.filter(~Exists(has_job)).order_by("since")
    by_user: dict[int, list[int]] = defaultdict(list)
    for user_id, note_id in oldest.values_list("note__user", "note")[:MAX_NOTES_PER_RUN]:
        by_user[user_id].append(note_id)
    return by_user


def resume_rollouts() -> None:
    """Finish rollouts that no job finished: promote the next model, or enqueue a job.

    A job is needed for notes that lack vectors of the next model without being pending, such as
    after a job that failed half-way.
    """
    has_job = BackgroundJob.objects.active().filter(user=OuterRef("user"))
    stalled = UserEmbeddingModel.objects.filter(~Exists(has_job), next_model__isnull=False)
    for models in stalled.select_related("user", "next_model"):
        if models.next_model and not cancel_rollout_if_job_cancelled(
            models.user, models.next_model
        ):
            _resume_rollout(models.user, models.next_model)


def _resume_rollout(user: User, next_model: EmbeddingModel) -> None:
    stale = Note.objects.for_user(user).stale(next_model)
    if not promote(user) and stale.filter(pending_embedding=None).exists():
        parameters = {"only_stale": True, "model": next_model.version}
        enqueue(user, EmbeddingRegeneration.name, parameters)


def cancel_rollout_if_job_cancelled(user: User, next_model: EmbeddingModel) -> bool:
    """Cancel the rollout if the user cancelled its latest job; whether it did."""
    latest = BackgroundJob.objects.for_user(user).filter(parameters__model=next_model.version)
    job = latest.first()
    is_cancelled = job is not None and job.status == BackgroundJob.Status.CANCELLED
    return is_cancelled and cancel_rollout(user)
