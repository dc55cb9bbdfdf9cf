"""Enqueues jobs for pending notes that are not embedded in their turn, and resumes rollouts.

notes.embeddings.saved_notes embeds ordinary notes. What is left are long notes, notes that were
marked in bulk, and notes whose process died or failed.
"""

from __future__ import annotations

from datetime import timedelta

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.db.models.functions import Now

from jobs.models import BackgroundJob
from jobs.runner import enqueue
from notes.embeddings.regeneration import EmbeddingRegeneration, EmbeddingUpdate
from notes.embeddings.rollout import cancel_rollout, promote
from notes.embeddings.saved_notes import request_help
from notes.models import EmbeddingModel, Note, UserEmbeddingModel
from notes.pending_embeddings import PendingEmbedding
from scribes.models import User

# A note that is still pending this long after a job was enqueued for it gets another job.
RETRY_SECONDS = 3600
# The limits of one run. The next run goes on.
MAX_USERS_PER_RUN = 1000
MAX_NOTES_PER_JOB = 10_000


def embed_pending_notes() -> None:
    """See to it that every pending note and every rollout goes on, whatever got lost."""
    request_help()
    enqueue_jobs_for_pending()
    resume_rollouts()


def enqueue_jobs_for_pending() -> None:
    """Enqueue jobs for the pending notes that nobody embeds in their turn, one job per user.

    A note that fails in the job, too, gets another job after RETRY_SECONDS.
    """
    # Without this, users who have a job already would fill the limit.
    has_job = BackgroundJob.objects.active().filter(
        user=OuterRef("pk"), job_type=EmbeddingUpdate.name
    )
    own = Note.objects.filter(user=OuterRef("pk"), pending_embedding__in=_need_job())
    users = User.objects.filter(Exists(own), ~Exists(has_job))
    for user in users.order_by("pk")[:MAX_USERS_PER_RUN]:
        _enqueue_job(user)


def _need_job() -> QuerySet[PendingEmbedding]:
    """Pending notes that have no turn or lost their process, without a recent job."""
    retry_before = Now() - timedelta(seconds=RETRY_SECONDS)
    no_job = Q(enqueued_at=None) | Q(enqueued_at__lt=retry_before)
    return PendingEmbedding.objects.not_in_turn().filter(no_job)


def _enqueue_job(user: User) -> None:
    oldest = _need_job().filter(note__user=user).order_by("since", "pk")
    note_ids = list(oldest.values_list("pk", flat=True)[:MAX_NOTES_PER_JOB])
    with transaction.atomic():
        _, is_new = enqueue(user, EmbeddingUpdate.name, {"item_ids": note_ids})
        if is_new:
            PendingEmbedding.objects.filter(pk__in=note_ids).update(enqueued_at=Now())


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
