"""Embeds saved notes, users in turn.

A message only says that notes wait. Whoever takes it claims a slice of the waiting notes, embeds it,
and goes on with the next slice, whoever saved those notes. A slice is little work, so a note that is
saved while another user has thousands waiting is embedded after at most one slice per process.

Notes that are too long for this, and those whose process died or failed, get a job:
see notes.embeddings.pending.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence

from django.db import transaction
from django.db.models.functions import Now
from redis import RedisError

from notes.embeddings.encoder import ModelUnavailable
from notes.embeddings.pipeline import embed_notes
from notes.embeddings.rollout import target_models
from notes.embeddings.store import save_embedded
from notes.models import EmbeddingModel, Note
from notes.pending_embeddings import PendingEmbedding
from scribes.messaging import broker
from scribes.messaging.failpoints import failpoint
from scribes.messaging.publishing import publish

logger = logging.getLogger(__name__)

# A slice: notes of one user, about half as much text as one batch of the encoder.
SLICE_NOTES = 16
SLICE_BYTES = 2000
# After this time a message has done enough, and other queues get their turn.
RUN_SECONDS = 1.0

FAILPOINTS = ("after_notes_claim",)


def embed_waiting_notes() -> None:
    """Embed waiting notes for about RUN_SECONDS. The rest gets another message."""
    deadline = time.monotonic() + RUN_SECONDS
    while time.monotonic() < deadline:
        if not embed_slice():
            return
        request_help()


def embed_newcomers() -> None:
    """Embed a slice if it is the turn of a user who had no note waiting before. Long work calls it
    from time to time."""
    embed_slice(only_newcomers=True)


def embed_slice(*, only_newcomers: bool = False) -> bool:
    """Embed the slice of notes whose turn it is; False if none waits.

    A note that cannot be embedded stays claimed. It gets a job when its claim has expired.
    """
    note_ids = claim_slice(only_newcomers=only_newcomers)
    failpoint("after_notes_claim")
    if note_ids:
        _embed(note_ids)
    return bool(note_ids)


def claim_slice(*, only_newcomers: bool = False) -> list[int]:
    """Claim the next notes of the user whose turn it is; their ids."""
    with transaction.atomic():
        in_turn = PendingEmbedding.objects.in_turn()
        first = in_turn.select_for_update(skip_locked=True).only("user", "turn", "size").first()
        if first is None or (only_newcomers and not first.is_newcomer()):
            return []
        own = in_turn.filter(user=first.user_id).select_for_update(skip_locked=True)
        note_ids = _up_to_slice_bytes(own.values_list("pk", "size")[:SLICE_NOTES])
        PendingEmbedding.objects.filter(pk__in=note_ids).update(claimed_at=Now())
    return note_ids


def _up_to_slice_bytes(notes: Iterable[tuple[int, int]]) -> list[int]:
    """The first notes of (id, size), and at least one."""
    ids: list[int] = []
    total = 0
    for note_id, size in notes:
        total += size
        if ids and total > SLICE_BYTES:
            break
        ids.append(note_id)
    return ids


def request_help() -> None:
    """Publish a message if notes wait and no message is in the queue, so that an idle process joins.

    Savers publish only if their user has no other note waiting, and rely on this.
    """
    if not PendingEmbedding.objects.in_turn().exists():
        return
    try:
        is_help_coming = broker.queue_length("notes") > 0
    except RedisError as error:
        logger.warning("The broker does not answer; saved notes have to wait: %s", error)
        return
    if not is_help_coming:
        publish_hint("waiting notes")


def publish_hint(details: str) -> None:
    publish("notes.tasks.embed_saved_notes", queue="notes", label=f"Embed saved notes: {details}")


# --- Embedding ------------------------------------------------------------------------------


def _embed(note_ids: Sequence[int]) -> None:
    """Embed these notes together; if that fails, one by one, so that a bad note fails alone."""
    if _embed_or_log(note_ids) or len(note_ids) == 1:
        return
    for note_id in note_ids:
        _embed_or_log([note_id])


def _embed_or_log(note_ids: Sequence[int]) -> bool:
    """Whether the notes were embedded."""
    try:
        embed_and_save(note_ids)
    except ModelUnavailable as error:
        logger.warning("Notes %s were not embedded: %s", note_ids, error)
    except Exception:
        logger.exception("Notes %s could not be embedded", note_ids)
    else:
        return True
    return False


def embed_and_save(note_ids: Sequence[int]) -> None:
    """Embed those of these notes that are pending, with all models that their users need. Passages
    that did not change keep their vectors."""
    pending = Note.objects.filter(pk__in=note_ids, pending_embedding__isnull=False)
    for model, notes in _by_model(pending.select_related("user").order_by("pk")).items():
        embedded = embed_notes(notes, model, reuse=True)
        with transaction.atomic():
            save_embedded(embedded, model)


def _by_model(notes: Iterable[Note]) -> dict[EmbeddingModel, list[Note]]:
    models: dict[EmbeddingModel, list[Note]] = defaultdict(list)
    for note in notes:
        for model in target_models(note.user):
            models[model].append(note)
    return models
